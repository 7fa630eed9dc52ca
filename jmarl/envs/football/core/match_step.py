"""One step of 0.1 s: commands, kicks, motion, touches, rules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core import ball as free_ball
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import keeper, kicks, motion, pitch, vectors
from jmarl.envs.football.core import player_commands as buttons
from jmarl.envs.football.core.contact import dribble, possession, touch
from jmarl.envs.football.core.player_commands import Commands
from jmarl.envs.football.core.scripted import race, scripted_team
from jmarl.envs.football.core.scripted.race import Race
from jmarl.envs.football.core.setup import Setup, attack_sign
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import (
    CONCEDED,
    FREE,
    GOAL,
    NOBODY,
    OUT,
    POSSESSION,
    RUNNING,
    TIME,
    World,
    is_opening,
    members,
    pick,
)


SCRIPTED = -1
"""Action of an agent whom the scripted play controls in this step."""
SUBSTEP_DRAWS = touch.TOUCH_DRAWS
SLIDE_TIME = 0.35
"""Seconds for which a slide can play the ball."""
SLIDE_SPEED = 8.0
"""Speed of a slide, m/s."""
RECOVERY = 1.0
"""Seconds that a slide takes in all."""
RUNS_ON = kicks.FOLLOW_THROUGH + 0.1
"""Seconds after a touch in which a player who cannot act runs on."""
FATIGUE = 0.00068
"""Growth of a player's fatigue per meter."""
FAST = 6.0
"""Speed of a pass beside whose path the receiver waits, m/s."""
NEARBY = 1.5
"""Distance of the ball below which an agent goes to it only after his delay, in meters."""
PARRY = 0.3
"""Fraction of its speed that a parried ball keeps, to the side."""
PARRY_OUT = 0.6
"""Speed of a parried ball away from the goal, as a part of that to the side."""
PARRY_RISE = 1.2
"""Upward speed of a parried ball, m/s."""
HANDS_AHEAD, HANDS_HEIGHT = 0.3, 1.3
"""Place of a ball in a keeper's hands: ahead of him and above the ground, in meters."""
MAGNET_SPEED, MAGNET_GAIN = 1.5, 5.0
"""Speed at the ball of an agent who is moved to it, m/s, and its growth with the distance, 1/s."""
LONG_AGO = 100.0
"""Largest time since a touch that is kept, in seconds."""


def n_draws(setup: Setup) -> int:
    """Return the number of uniform draws that a step takes for each environment."""
    per_substep = setup.config.substeps * SUBSTEP_DRAWS
    return per_substep + kicks.KICK_DRAWS + 2 * setup.n_players


def advance(
    setup: Setup, world: World, action: Int[Array, "N *b"], draws: Float[Array, "D *b"]
) -> World:
    """Advance football by one step.

    Args:
        setup: Scenario and options.
        world: Current state.
        action: Actions of the agents, 0 to ``n_actions``, or ``SCRIPTED``.
        draws: Uniform draws in [0, 1), ``n_draws`` of them.

    Returns:
        The next state. The last state of an episode is what its last step led to.
    """
    substep_draws, kick_draws, team_draws = _split(setup, draws)
    kind, target = buttons.decode(setup, action)
    world = buttons.press(setup, world, kind)
    sprint = race.race(setup, world)
    scripted = scripted_team.plan(setup, world, sprint, team_draws)
    commands = _agent_commands(
        setup,
        world,
        sprint,
        scripted,
        (kind, target),
    )
    world = _start_slides(world, commands)
    world = kicks.request(world, commands, pitch.STEP)
    world = kicks.launch(
        setup,
        world,
        kicks.ready(world),
        kick_draws,
    )
    world = _run_substeps(setup, world, commands, substep_draws)
    return _finish(setup, world)


def _split(setup: Setup, draws: Float[Array, "D *b"]) -> tuple[Array, Array, Array]:
    """Return the draws of each substep, of the kick, and of each player."""
    substeps = setup.config.substeps
    n = substeps * SUBSTEP_DRAWS
    batch = draws.shape[1:]
    rest = draws[n + kicks.KICK_DRAWS :]
    return (
        draws[:n].reshape(substeps, SUBSTEP_DRAWS, *batch),
        draws[n : n + kicks.KICK_DRAWS],
        rest.reshape(2, setup.n_players, *batch),
    )


def _run_substeps(
    setup: Setup,
    world: World,
    commands: Commands,
    draws: Float[Array, "K D *b"],
) -> World:
    """Advance by all substeps; a world whose episode has ended stays as it is."""
    previous = world.wish_x, world.wish_y
    h = pitch.STEP / setup.config.substeps

    def substep(
        carry: tuple[World, Array], draws: Array
    ) -> tuple[tuple[World, Array], None]:
        world, elapsed = carry
        moved = _substep(
            setup,
            world,
            commands,
            previous,
            (draws, elapsed, h),
        )
        running = world.end == RUNNING
        world = jax.tree.map(
            lambda new, old: jnp.where(running, new, old), moved, world
        )
        return (world, elapsed + h), None

    start = world, jnp.float32(0)
    (world, _), _ = jax.lax.scan(substep, start, draws)
    return world


def _agent_commands(
    setup: Setup,
    world: World,
    sprint: Race,
    scripted: Commands,
    action: tuple[Int[Array, "N *b"], Int[Array, "N *b"]],
) -> Commands:
    """Replace the commands of the agents by their actions."""
    kind = _of_all_players(setup, action[0], SCRIPTED)
    target = _of_all_players(setup, action[1], NOBODY)
    steered = kind != SCRIPTED
    ux, uy, speed = _pressed(world)
    run = speed * ux, speed * uy
    pulls, off = _magnet(world, sprint, run)
    run = vectors.where(steered, run, (scripted.x, scripted.y))
    off = vectors.where(steered, off, (scripted.off_x, scripted.off_y))
    still = world.direction == 0
    is_kick = (kind >= game.LONG_PASS) & (kind <= game.SHOT)
    allowed = sprint.first | sprint.ahead
    kick = jnp.where(is_kick & allowed, kind, 0)
    aim = vectors.where(still, world.face, (ux, uy))
    aim = vectors.where(steered, aim, (scripted.kick_x, scripted.kick_y))
    return Commands(
        x=run[0],
        y=run[1],
        off_x=off[0],
        off_y=off[1],
        kick=jnp.where(steered, kick, scripted.kick).astype(jnp.int8),
        kick_x=aim[0],
        kick_y=aim[1],
        kick_to=jnp.where(steered, target, scripted.kick_to).astype(jnp.int8),
        slide=steered & (kind == game.SLIDING),
        sprint=steered & world.sprint,
        dribble=steered & world.dribble,
        delayed=steered & ~pulls,
        passive=~steered & scripted.passive,
    )


def _of_all_players(
    setup: Setup, of_agents: Int[Array, "N *b"], others: int
) -> Int[Array, "P *b"]:
    """Extend values of the agents to all players."""
    n_others = setup.n_players - setup.n_left
    pad = ((1, n_others),) + ((0, 0),) * (of_agents.ndim - 1)
    return jnp.pad(of_agents, pad, constant_values=others)


def _pressed(world: World) -> tuple[Array, Array, Array]:
    """Return the direction that each player's buttons give, x and y, and the speed."""
    direction = jnp.asarray(game.DIRECTIONS)[world.direction.astype(jnp.int32)]
    speed = jnp.where(
        world.dribble,
        buttons.DRIBBLE,
        buttons.WALK,
    )
    speed = jnp.where(world.sprint, buttons.SPRINT, speed)
    return direction[..., 0], direction[..., 1], speed


def _magnet(
    world: World, sprint: Race, run: Vector
) -> tuple[Bool[Array, "P *b"], Vector]:
    """Move the first player of a team to a free ball, as GRF does with its agents.

    Returns:
        The mask of the players who are moved without a delay, and the desired velocities of all.
    """
    loose = ~jnp.any(possession.carrier(world), axis=0) & (world.held <= 0)
    near = possession.distance(world)
    pulls = sprint.first & loose
    waits = (near > touch.TRAP_REACH) & (near < NEARBY)
    # The receiver of a pass waits beside its path; others run to where they reach the ball first.
    receives = members(world.receiver, len(world.x))
    receives &= possession.rolls_faster(world, FAST)
    path = keeper.nearest_on_path(world)
    goes_to = vectors.where(receives, path, (sprint.x, sprint.y))
    pulled = vectors.approach(
        vectors.minus(goes_to, world.place),
        limit=jnp.maximum(vectors.length(run), buttons.WALK),
        gain=MAGNET_GAIN,
        slowest=MAGNET_SPEED,
    )
    return pulls & ~waits, vectors.where(pulls, pulled, run)


def _start_slides(world: World, commands: Commands) -> World:
    """Start the slides of players who are able to, and do not carry the ball."""
    starts = commands.slide & (world.busy <= 0) & world.active
    starts &= ~possession.carrier(world)
    return world.replace(
        slide=jnp.where(starts, SLIDE_TIME, world.slide),
        busy=jnp.where(starts, RECOVERY, world.busy),
    )


def _substep(
    setup: Setup,
    world: World,
    commands: Commands,
    previous: Vector,
    now: tuple[Float[Array, "D *b"], Float[Array, ""], float],
) -> World:
    """Advance motion, ball and touches by a part of a step."""
    draws, elapsed, h = now
    before = world.ball
    world = _move_players(
        setup,
        world,
        commands,
        previous,
        (elapsed, h),
    )
    world = _move_ball(_pass_time(world, h), h)
    world = _save(setup, world, before, draws)
    contact = touch.contact(
        setup,
        world,
        commands,
        before,
        draws,
        h,
    )
    contact = contact._replace(who=contact.who & ~(world.held > 0))
    world = touch.stop_ball(
        world,
        before,
        contact.who & ~possession.carrier(world),
    )
    world = touch.play(world, commands, contact, draws)
    return _score(setup, world, before)


def _move_players(
    setup: Setup,
    world: World,
    commands: Commands,
    previous: Vector,
    time: tuple[Float[Array, ""], float],
) -> World:
    """Run after the commands, or after those of the last step until a player reacts.

    Args:
        setup: Scenario and options.
        world: Current state.
        commands: Commands of all players.
        previous: Desired velocities of the last step.
        time: Seconds since the start of the step, and of the substep.
    """
    elapsed, h = time
    carries = possession.carrier(world)
    wish = dribble.carrier_wish(world, commands, carries)
    late = commands.delayed & (elapsed < _latency(world) - dribble.TIME_ROUNDING)
    runs = (jnp.abs(commands.x) + jnp.abs(commands.y)) > 0
    world = motion.accelerate(
        setup,
        world,
        _busy_wish(world, vectors.where(late, previous, wish)),
        carries & runs,
        h,
    )
    world = motion.separate(world)
    return world.replace(wish_x=wish[0], wish_y=wish[1])


def _latency(world: World) -> Float[Array, "P *b"]:
    """Return the seconds until each player reacts to a command."""
    rests = vectors.length(world.velocity) < motion.REST_SPEED
    starts = is_opening(world) & (world.steps == 0)
    return jnp.where(
        rests & ~starts,
        motion.START_LATENCY,
        motion.LATENCY,
    )


def _pass_time(world: World, h: float) -> World:
    """Advance the timers of the players."""
    return world.replace(
        busy=jnp.maximum(world.busy - h, 0.0),
        slide=jnp.maximum(world.slide - h, 0.0),
        touched=jnp.minimum(world.touched + h, LONG_AGO),
        held=jnp.where(world.held > 0, world.held + h, 0.0),
    )


def _move_ball(world: World, h: float) -> World:
    """Let the ball fly, or carry it in a keeper's hands."""
    ball, ball_v = free_ball.fly(world.ball, world.ball_v, h)
    ball, ball_v = free_ball.bounce_off_posts(world.ball, ball, ball_v)
    in_hands = world.held > 0
    return world.replace(
        ball=jnp.where(in_hands, _hands(world), ball),
        ball_v=jnp.where(in_hands, 0.0, ball_v),
    )


def _busy_wish(world: World, wish: Vector) -> Vector:
    """Return the desired velocity of players who cannot act: a slide, or none."""
    busy = world.busy > 0
    kicked = world.touched < RUNS_ON
    stop = busy & ~kicked  # after a kick a player runs on
    wish = jnp.where(stop, 0.0, wish[0]), jnp.where(stop, 0.0, wish[1])
    slide = SLIDE_SPEED * world.face_x, SLIDE_SPEED * world.face_y
    return vectors.where(world.slide > 0, slide, wish)


def _hands(world: World) -> Float[Array, "3 *b"]:
    """Return the place of a ball in the hands of the last toucher."""
    holder = possession.last_toucher(world)
    x = pick(world.x + HANDS_AHEAD * world.face_x, holder)
    y = pick(world.y + HANDS_AHEAD * world.face_y, holder)
    return jnp.stack([x, y, jnp.full_like(x, HANDS_HEIGHT)])


def _save(
    setup: Setup, world: World, before: Float[Array, "3 *b"], draws: Array
) -> World:
    """Let a keeper catch or parry the ball."""
    apart = possession.swept_distance(world, before)
    last = possession.last_toucher(world)
    since = pick(world.touched, last)
    carried = jnp.any(possession.carrier(world), axis=0)
    who = keeper.saves(setup, world, apart, since) & ~last & ~carried
    stops = jnp.any(who, axis=0)
    holds = stops & keeper.holds(world, who)
    parried = _parried(setup, world, who, draws[0])
    velocity = jnp.where(stops, parried, world.ball_v)
    index = jnp.argmax(who, axis=0).astype(jnp.int8)
    world = touch.stop_ball(world, before, who)
    return world.replace(
        ball_v=jnp.where(holds, 0.0, velocity),
        held=jnp.where(holds, 1e-3, world.held),
        last_touch=jnp.where(stops, index, world.last_touch),
        receiver=jnp.where(stops, NOBODY, world.receiver).astype(jnp.int8),
        bounced=jnp.where(stops, ~holds, world.bounced),
        touched=jnp.where(who, 0.0, world.touched),
    )


def _parried(
    setup: Setup,
    world: World,
    who: Bool[Array, "P *b"],
    draw: Float[Array, "*b"],
) -> Float[Array, "3 *b"]:
    """Return the velocity of a ball that a keeper parries, away from the goal and sideways."""
    side = jnp.where(draw < 0.5, -1.0, 1.0)
    speed = PARRY * jnp.sqrt(jnp.sum(world.ball_v[:2] ** 2, axis=0))
    out = PARRY_OUT * attack_sign(setup, who) * speed
    return jnp.stack([out, side * speed, PARRY_RISE + 0 * speed])


def _score(
    setup: Setup,
    world: World,
    before: Float[Array, "3 *b"],
) -> World:
    """Latch goals and balls out of play."""
    goal = free_ball.goal_line(before, world.ball)
    left = goal & (world.ball[0] > 0)
    right = goal & (world.ball[0] < 0)
    out = free_ball.out_of_play(world.ball) & ~goal
    score = world.score + jnp.stack([left, right]).astype(jnp.int8)
    scenario = setup.scenario
    end = world.end
    if scenario.ends_with_goal:
        end = jnp.where(
            left,
            GOAL,
            jnp.where(right, CONCEDED, end),
        )
    if scenario.ends_with_out:
        end = jnp.where(
            out & (end == RUNNING),
            OUT,
            end,
        )
    return world.replace(
        score=score,
        end=end.astype(jnp.int8),
    )


def _finish(setup: Setup, world: World) -> World:
    """Count the step, and set the owner and the end of the episode."""
    owner = possession.owner(world)
    team = jnp.where(owner >= setup.n_left, 1, 0)
    team = jnp.where(owner < 0, FREE, team).astype(jnp.int8)
    lost = (team != FREE) & (world.last_team != FREE) & (team != world.last_team)
    end = world.end
    if setup.scenario.ends_with_possession:
        end = jnp.where(
            lost & (end == RUNNING),
            POSSESSION,
            end,
        )
    steps = world.steps + 1
    end = jnp.where(
        (end == RUNNING) & (steps >= setup.episode_limit),
        TIME,
        end,
    )
    return world.replace(
        owner=owner,
        last_team=jnp.where(team == FREE, world.last_team, team),
        steps=steps,
        end=end.astype(jnp.int8),
        tired=jnp.clip(
            world.tired + FATIGUE * pitch.STEP * vectors.length(world.velocity),
            0.0,
            1.0,
        ),
    )
