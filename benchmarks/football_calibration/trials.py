"""Set-ups of the measurements as user scenarios, played with given actions at many seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.game_actions import ACTIONS
from jmarl.envs.football.core.match_step import advance, n_draws
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import RUNNING, World
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios.football_scenario import Player, Scenario


FAST_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}
"""Options of XLA: a program runs once, so most of its time is compilation."""

Place = tuple[float, float]
"""x and y in meters, in the frame of the pitch."""
Script = Mapping[int, str]
"""Names of actions by step; idle in the other steps."""


class Track(NamedTuple):
    """States after each step, of C cells and S seeds: the first row is the start."""

    place: Float[np.ndarray, "T C S P 2"]
    """Meters."""
    velocity: Float[np.ndarray, "T C S P 2"]
    """m/s."""
    ball: Float[np.ndarray, "T C S 3"]
    ball_velocity: Float[np.ndarray, "T C S 3"]
    owner: Int[np.ndarray, "T C S"]
    """Index of the owner, or -1."""
    end: Int[np.ndarray, "T C S"]
    """Why the episode has ended, an index of ``ENDS``; the state stays then."""


class Cell(NamedTuple):
    """A set-up, and what its agents press."""

    scenario: Scenario
    scripts: tuple[Script, ...]
    """One for each agent."""


def at(
    role: str,
    place: Place,
    *,
    right: bool = False,
    lazy: bool = False,
) -> Player:
    """Return a player at a place in meters."""
    sign = -1 if right else 1
    x, y = place
    return Player(
        role, sign * x / pitch.FORMATION_X, sign * y / pitch.FORMATION_Y, lazy
    )


def scenario(
    ball: Place,
    left: Sequence[Player],
    right: Sequence[Player],
    *,
    ends: bool = False,
    difficulty: float = 0.6,
) -> Scenario:
    """Return a scenario that ends after a minute, or also with a goal, an out or a possession."""
    x, y = ball
    return Scenario(
        name="calibration",
        description="Measurement",
        ball=(x / pitch.SCALE_X, y / pitch.SCALE_Y),
        left=tuple(left),
        right=tuple(right),
        limit=600,
        ends_with_goal=ends,
        ends_with_out=ends,
        ends_with_possession=ends,
        difficulty=difficulty,
    )


def play_cells(
    cells: Sequence[Cell],
    steps: int,
    seeds: int,
    key: int = 0,
) -> Track:
    """Play all cells at all seeds.

    The cells must have the same players but for their places. Half of the seeds let the right team
    win ties.
    """
    setups = [Setup(cell.scenario, FootballConfig()) for cell in cells]
    right_first = jnp.arange(seeds) % 2 == 1
    noise = jnp.zeros((setups[0].n_players, 2, seeds))
    worlds = [first_world(setup, noise, right_first) for setup in setups]
    world = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves, axis=-1),
        *worlds,
    )
    scripts = [script_actions(cell.scripts, steps) for cell in cells]
    actions = np.repeat(
        np.stack(scripts, axis=-1),
        seeds,
        axis=-1,
    )
    return play_worlds(setups[0], world, actions, seeds, key)


def play_worlds(
    setup: Setup,
    world: World,
    actions: Int[np.ndarray, "T N b"],
    seeds: int,
    key: int = 0,
) -> Track:
    """Play given actions from given states, whose batch has cells of ``seeds`` entries."""
    rows = jax.device_get(
        _play(
            setup,
            world,
            jnp.asarray(actions),
            jax.random.key(key),
        )
    )
    first = jax.device_get(_row(world))
    return Track(
        *(
            _split_batch(
                np.concatenate([start[None], row]),
                seeds,
            )
            for start, row in zip(first, rows, strict=True)
        )
    )


def script_actions(
    scripts: Sequence[Script],
    steps: int,
) -> Int[np.ndarray, "T N"]:
    """Return the actions of some scripts."""
    actions = np.zeros(
        (steps, len(scripts)),
        np.int32,
    )
    for agent, script in enumerate(scripts):
        for step, name in script.items():
            actions[step, agent] = ACTIONS.index(name)
    return actions


@partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILATION)
def _play(
    setup: Setup,
    world: World,
    actions: Int[Array, "T N b"],
    key: Any,
) -> tuple:
    def step(
        world: World,
        now: tuple[Any, Array],
    ) -> tuple[World, tuple]:
        key, action = now
        draws = jax.random.uniform(
            key,
            (n_draws(setup), action.shape[-1]),
        )
        after = advance(setup, world, action, draws)
        running = world.end == RUNNING
        world = jax.tree.map(partial(_where, running), after, world)
        return world, _row(world)

    keys = jax.random.split(key, len(actions))
    return jax.lax.scan(step, world, (keys, actions))[1]


def _where(
    running: Bool[Array, "b"],
    new: Array,
    old: Array,
) -> Array:
    return jnp.where(running, new, old).astype(old.dtype)


def _row(world: World) -> tuple[Array, ...]:
    """Return the arrays of a track with the batch as the first axis."""
    place = jnp.stack(
        [world.x.T, world.y.T],
        axis=-1,
    )
    velocity = jnp.stack(
        [world.vx.T, world.vy.T],
        axis=-1,
    )
    return place, velocity, world.ball.T, world.ball_v.T, world.owner, world.end


def _split_batch(
    rows: np.ndarray,
    seeds: int,
) -> np.ndarray:
    """Split the batch, the second axis, into cells and seeds."""
    cells = rows.shape[1] // seeds
    return rows.reshape(
        len(rows),
        cells,
        seeds,
        *rows.shape[2:],
    )
