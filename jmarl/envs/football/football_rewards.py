"""Rewards of the agents for one step, for each value of ``env.reward``."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import World, expand


CHECKPOINT_REWARD = 0.1
CHECKPOINTS = np.linspace(
    0.99,
    0.19,
    10,
    dtype=np.float32,
)
"""Distances of GRF's checkpoints from the goal, in the units of GRF."""
AHEAD, NOT_AHEAD = 10.0, -0.1
"""SPECTra's reward of a step after which the left team is ahead, or not."""
STEP_COST, OUT_COST, YELLOW_COST = 0.0001, 0.0001, 0.1
"""SPECTra's costs of a step, of a player off the pitch, and of a yellow card."""
END_X = 1.0 * pitch.SCALE_X
"""Borders of SPECTra's pitch, in meters."""
END_Y = 0.42 * pitch.SCALE_Y


def rewards(
    setup: Setup, before: World, after: World
) -> tuple[Float[Array, "N *b"], World]:
    """Return the rewards of a step, and the state with the checkpoints that it reached.

    Args:
        setup: Scenario and options.
        before: State before the step.
        after: State that the step led to, with the ball in the net if there was a goal.
    """
    goals = _lead(after) - _lead(before)
    if setup.config.reward == "checkpoints":
        return _checkpoints(setup, goals, after)
    is_spectra = setup.config.reward == "spectra"
    team = _spectra(setup, before, after) if is_spectra else goals
    shape = (setup.scenario.n_agents, *team.shape)
    return jnp.broadcast_to(team, shape), after


def _lead(world: World) -> Float[Array, "*b"]:
    """Return the goals of the left team minus those of the right team."""
    left, right = world.score.astype(jnp.float32)
    return left - right


def _checkpoints(
    setup: Setup, goals: Array, after: World
) -> tuple[Float[Array, "N *b"], World]:
    """Add GRF's reward of checkpoints to that of goals.

    The owner of the ball collects the checkpoints that it has passed, 0.1 each. A goal pays the
    remaining checkpoints of every agent.
    """
    agents = slice(1, setup.n_left)
    player = np.arange(1, setup.n_left)
    owns = expand(player, after.x) == after.owner  # [N, *b]
    passed = jnp.where(
        owns & (goals == 0),
        _passed(after),
        0,
    )
    passed = jnp.where(goals > 0, len(CHECKPOINTS), passed)
    collected = after.checkpoints[agents]
    total = jnp.maximum(collected, passed.astype(jnp.int8))
    reward = goals + CHECKPOINT_REWARD * (total - collected)
    checkpoints = after.checkpoints.at[agents].set(total)
    return reward, after.replace(checkpoints=checkpoints)


def _passed(world: World) -> Int[Array, "*b"]:
    """Return the number of checkpoints that are no nearer to the goal than the ball."""
    x = world.ball[0] / pitch.SCALE_X - 1.0
    y = world.ball[1] / pitch.SCALE_Y
    distance = jnp.sqrt(x * x + y * y)[None]
    return (distance <= expand(CHECKPOINTS, distance)).sum(0)


def _spectra(
    setup: Setup,
    before: World,
    after: World,
) -> Float[Array, "*b"]:
    """Return SPECTra's reward of the team."""
    left = slice(0, setup.n_left)
    far_x = jnp.abs(after.x) > END_X
    far_y = jnp.abs(after.y) > END_Y
    in_play = (before.mode == 0) & (after.mode == 0)
    out = (far_x | far_y) & after.active & in_play
    cards = after.yellow - before.yellow
    score = jnp.where(_lead(after) > 0, AHEAD, NOT_AHEAD)
    out_cost = OUT_COST * out[left].sum(0)
    yellow_cost = YELLOW_COST * cards[left].sum(0)
    return score - STEP_COST - out_cost - yellow_cost


def own_half(
    setup: Setup,
    world: World,
) -> Bool[Array, "*b"]:
    """Return whether the ball or an agent is in the own half, which ends SPECTra's tasks.

    Only the ball and agents that start in the opponents' half count. Thus the rule ends no episode
    of other scenarios at its first step.
    """
    x, _ = setup.start()
    is_ahead = setup.agent & (x > 0)
    behind = expand(is_ahead, world.x) & world.active & (world.x < 0)
    any_behind = jnp.any(behind, axis=0)
    if setup.scenario.ball[0] <= 0:
        return any_behind
    return any_behind | (world.ball[0] < 0)
