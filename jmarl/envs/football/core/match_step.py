"""One step of 0.1 s: commands, kicks, motion, touches, rules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core import ball as free_ball
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import keeper, kicks, motion, pitch, scripted_team, touch
from jmarl.envs.football.core import player_commands as buttons
from jmarl.envs.football.core.player_commands import Commands
from jmarl.envs.football.core.scripted_team import Race
from jmarl.envs.football.core.setup import Setup
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
    expand,
    is_opening,
    members,
    pick,
)


SCRIPTED = -1
"""Action of an agent whom the scripted play controls in this step."""
SUBSTEP_DRAWS = touch.TOUCH_DRAWS
SLIDE_TIME = 0.35
SLIDE_SPEED = 8.0
"""Speed of a slide, m/s."""
RECOVERY = 1.0
"""Seconds that a slide takes in all."""
FATIGUE = 0.00068
"""Growth of a player's fatigue per meter."""
FAST = 6.0
"""Speed of a pass beside whose path the receiver waits, m/s."""
NEARBY = 1.5
"""Distance of the ball below which an agent goes to it only after his delay, in meters."""
PARRY = 0.3
"""Fraction of its speed that a parried ball keeps."""


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
    config = setup.config
    substeps = config.substeps * SUBSTEP_DRAWS
    batch = draws.shape[1:]
    steps = draws[:substeps].reshape(config.substeps, SUBSTEP_DRAWS, *batch)
    kick_draws = draws[substeps : substeps + kicks.KICK_DRAWS]
    team_draws = draws[substeps + kicks.KICK_DRAWS :].reshape(
        2, setup.n_players, *batch
    )
    kind, target = buttons.decode(setup, action)
    world = buttons.press(setup, world, kind)
    sprint = scripted_team.race(setup, world)
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
    previous = world.wish_x, world.wish_y
    h = pitch.STEP / config.substeps

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

    (world, _), _ = jax.lax.scan(
        substep,
        (world, jnp.float32(0)),
        steps,
    )
    return _finish(setup, world)


def _agent_commands(
    setup: Setup,
    world: World,
    sprint: Race,
    scripted: Commands,
    action: tuple[Int[Array, "N *b"], Int[Array, "N *b"]],
) -> Commands:
    """Replace the commands of the agents by their actions."""
    others = setup.n_players - setup.n_left
    pad = ((1, others),) + ((0, 0),) * (world.x.ndim - 1)
    kind = jnp.pad(action[0], pad, constant_values=SCRIPTED)
    target = jnp.pad(
        action[1],
        pad,
        constant_values=-1,
    )
    steered = kind != SCRIPTED
    direction = jnp.asarray(game.DIRECTIONS)[world.direction.astype(jnp.int32)]
    ux, uy = direction[..., 0], direction[..., 1]
    speed = jnp.where(
        world.dribble,
        buttons.DRIBBLE,
        buttons.WALK,
    )
    speed = jnp.where(world.sprint, buttons.SPRINT, speed)
    x, y = speed * ux, speed * uy
    pulls, off_x, off_y = _magnet(world, sprint, x, y)
    still = world.direction == 0
    is_kick = (kind >= game.LONG_PASS) & (kind <= game.SHOT)
    allowed = sprint.first | sprint.ahead
    kick = jnp.where(is_kick & allowed, kind, 0)
    return Commands(
        x=jnp.where(steered, x, scripted.x),
        y=jnp.where(steered, y, scripted.y),
        off_x=jnp.where(steered, off_x, scripted.off_x),
        off_y=jnp.where(steered, off_y, scripted.off_y),
        kick=jnp.where(steered, kick, scripted.kick).astype(jnp.int8),
        kick_x=jnp.where(
            steered,
            jnp.where(still, world.face_x, ux),
            scripted.kick_x,
        ),
        kick_y=jnp.where(
            steered,
            jnp.where(still, world.face_y, uy),
            scripted.kick_y,
        ),
        kick_to=jnp.where(steered, target, scripted.kick_to).astype(jnp.int8),
        slide=steered & (kind == game.SLIDING),
        sprint=steered & world.sprint,
        dribble=steered & world.dribble,
        delayed=steered & ~pulls,
        passive=~steered & scripted.passive,
    )


def _magnet(
    world: World, sprint: Race, x: Array, y: Array
) -> tuple[Bool[Array, "P *b"], Float[Array, "P *b"], Float[Array, "P *b"]]:
    """Move the first player of a team to a free ball, as GRF does with its agents.

    Returns:
        The mask of the players who are moved without a delay, and the desired velocities of all.
    """
    loose = ~jnp.any(touch.carrier(world), axis=0) & (world.held <= 0)
    near = touch.distance(world)
    pulls = sprint.first & loose
    waits = (near > touch.TRAP_REACH) & (near < NEARBY)
    # The receiver of a pass waits beside its path; others run to where they reach the ball first.
    receives = members(world.receiver, len(world.x))
    receives &= jnp.sum(world.ball_v[:2] ** 2, axis=0) > FAST**2
    path_x, path_y = keeper.nearest_on_path(world)
    to_x = jnp.where(receives, path_x, sprint.x)
    to_y = jnp.where(receives, path_y, sprint.y)
    dx, dy = to_x - world.x, to_y - world.y
    way = jnp.sqrt(dx**2 + dy**2)
    way = jnp.maximum(way, 1e-3)
    wanted = jnp.sqrt(x**2 + y**2)
    speed = jnp.maximum(wanted, buttons.WALK)
    speed = jnp.minimum(speed, 1.5 + 5.0 * way)
    return (
        pulls & ~waits,
        jnp.where(pulls, speed * dx / way, x),
        jnp.where(pulls, speed * dy / way, y),
    )


def _start_slides(world: World, commands: Commands) -> World:
    starts = commands.slide & (world.busy <= 0) & world.active
    starts &= ~touch.carrier(world)
    return world.replace(
        slide=jnp.where(starts, SLIDE_TIME, world.slide),
        busy=jnp.where(starts, RECOVERY, world.busy),
    )


def _substep(
    setup: Setup,
    world: World,
    commands: Commands,
    previous: tuple[Array, Array],
    now: tuple[Float[Array, "D *b"], Float[Array, ""], float],
) -> World:
    """Advance motion, ball and touches by a part of a step."""
    draws, elapsed, h = now
    carries = touch.carrier(world)
    speed = jnp.sqrt(world.vx**2 + world.vy**2)
    latency = jnp.where(
        speed < motion.REST_SPEED,
        motion.START_LATENCY,
        motion.LATENCY,
    )
    starts = is_opening(world) & (world.steps == 0)
    latency = jnp.where(starts, motion.LATENCY, latency)
    wish_x, wish_y = touch.carrier_wish(world, commands, carries)
    late = commands.delayed & (elapsed < latency - 1e-4)
    wish = _busy_wish(
        world,
        jnp.where(late, previous[0], wish_x),
        jnp.where(late, previous[1], wish_y),
    )
    runs = (jnp.abs(commands.x) + jnp.abs(commands.y)) > 0
    world = motion.accelerate(
        setup,
        world,
        wish,
        carries & runs,
        h,
    )
    world = motion.separate(world)
    before = world.ball
    ball, ball_v = free_ball.fly(world.ball, world.ball_v, h)
    ball, ball_v = free_ball.bounce_off_posts(before, ball, ball_v)
    in_hands = world.held > 0
    hand_x, hand_y = _hands(world)
    held_ball = jnp.stack([hand_x, hand_y, jnp.full_like(hand_x, 1.3)])
    world = world.replace(
        ball=jnp.where(in_hands, held_ball, ball),
        ball_v=jnp.where(in_hands, 0.0, ball_v),
        busy=jnp.maximum(world.busy - h, 0.0),
        slide=jnp.maximum(world.slide - h, 0.0),
        touched=jnp.minimum(world.touched + h, 100.0),
        held=jnp.where(in_hands, world.held + h, 0.0),
        wish_x=wish_x,
        wish_y=wish_y,
    )
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
        contact.who & ~touch.carrier(world),
    )
    world = touch.play(world, commands, contact, draws)
    return _score(setup, world, before)


def _busy_wish(
    world: World,
    x: Array,
    y: Array,
) -> tuple[Array, Array]:
    """Return the desired velocity of players who cannot act: a slide, or none."""
    busy = world.busy > 0
    slides = world.slide > 0
    kicked = world.touched < kicks.FOLLOW_THROUGH + 0.1
    stop = busy & ~kicked  # after a kick a player runs on
    x = jnp.where(stop, 0.0, x)
    y = jnp.where(stop, 0.0, y)
    return (
        jnp.where(slides, SLIDE_SPEED * world.face_x, x),
        jnp.where(slides, SLIDE_SPEED * world.face_y, y),
    )


def _hands(world: World) -> tuple[Array, Array]:
    holder = touch.members_last(world)
    x = pick(world.x + 0.3 * world.face_x, holder)
    return x, pick(world.y + 0.3 * world.face_y, holder)


def _save(
    setup: Setup, world: World, before: Float[Array, "3 *b"], draws: Array
) -> World:
    """Let a keeper catch or parry the ball."""
    apart = touch.swept_distance(world, before)
    last = touch.members_last(world)
    since = pick(world.touched, last)
    carried = jnp.any(touch.carrier(world), axis=0)
    who = keeper.saves(setup, world, apart, since) & ~last & ~carried
    stops = jnp.any(who, axis=0)
    holds = stops & keeper.holds(world, who)
    sign = pick(
        jnp.broadcast_to(expand(setup.sign, world.x), world.x.shape),
        who,
    )
    side = jnp.where(
        draws[0] < 0.5,
        -1.0,
        1.0,
    )
    speed = PARRY * jnp.sqrt(jnp.sum(world.ball_v[:2] ** 2, axis=0))
    parried = jnp.stack([0.6 * sign * speed, side * speed, 1.2 + 0 * speed])
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
    owner = touch.owner(world)
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
            world.tired + FATIGUE * pitch.STEP * jnp.sqrt(world.vx**2 + world.vy**2),
            0.0,
            1.0,
        ),
    )
