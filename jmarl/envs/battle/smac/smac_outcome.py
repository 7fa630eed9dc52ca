"""Rewards and ends of episodes under the rules of SMAC."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.combat.combatants import take
from jmarl.envs.battle.combat.tick import Events
from jmarl.envs.battle.env import Outcome
from jmarl.envs.battle.scenarios.battle_spec import Weights
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_observe import sees, view
from jmarl.envs.battle.smac.smac_state import State, rows_of, trait


KILL_REWARD = 10.0
WIN_REWARD = 200.0
MAX_REWARD = 20.0
"""Return of a win, if the enemies do not recover."""


class Step(NamedTuple):
    """One step of a batch of battles."""

    before: State
    after: State
    events: Events
    killed: Bool[Array, "B U"]
    """Units that died in this step. A withdrawn unit did not die."""


def outcome(f: Facts, step: Step) -> Outcome:
    """Return the rewards of a step, and whether it ended the episode."""
    has_won, has_lost = won(f, step.after), _allies_beaten(f, step.after)
    terminated = has_won | has_lost
    limit = f.choose(f.limits, step.after.choice)
    truncated = ~terminated & (step.after.steps >= limit)
    reward = _rewards(f, step, has_won)
    return Outcome(
        reward * MAX_REWARD / _most(f, step)[..., None], terminated, truncated
    )


def won(f: Facts, state: State) -> Bool[Array, "B"]:
    """Return whether no enemy is left, or a single healer, and allies that fight are.

    In SMACv2, any number of healers may be left.
    """
    standing = _standing(f, state)[:, f.n :]
    few = standing.sum(1) <= 1 if not f.is_v2 else True
    beaten = ~(standing & ~_heals(f, state)[..., f.n :]).any(1) & few
    return beaten & ~_allies_beaten(f, state)


def _allies_beaten(f: Facts, state: State) -> Bool[Array, "B"]:
    standing = _standing(f, state)[:, : f.n]
    return ~(standing & ~_heals(f, state)[..., : f.n]).any(1)


def _heals(f: Facts, state: State) -> Any:
    return trait(f, rows_of(f, state), "heal") > 0


def _standing(f: Facts, state: State) -> Bool[Array, "B U"]:
    """Return the units that live, have not arrived yet, or were withdrawn alive."""
    if state.arrives is None or state.leaves is None:
        return state.alive
    steps = state.steps[:, None]
    is_due = (state.arrives > steps) & (rows_of(f, state) != f.nobody)
    return state.alive | is_due | (state.leaves <= steps)


def _most(f: Facts, step: Step) -> Float[Array, "*"]:
    """Return the maximal sum of SMAC's rewards before scaling."""
    rows = rows_of(f, step.after)[..., f.n :]
    strength = trait(f, rows, "health") + trait(f, rows, "shield")
    count = (rows != f.nobody).sum(-1)
    return jnp.asarray(KILL_REWARD * count + WIN_REWARD + strength.sum(-1))


def _rewards(f: Facts, step: Step, has_won: Array) -> Float[Array, "B N"]:
    """Return SMAC's team reward, mixed with each agent's own if the battle has weights."""
    team = _team_reward(f, step) + WIN_REWARD * has_won
    rewards = jnp.broadcast_to(team[:, None], (team.shape[0], f.n))
    share = getattr(f.battle, "team_reward", 1.0)
    if share == 1:
        return rewards
    return share * rewards + (1 - share) * _own_rewards(f, step, has_won)


def _team_reward(f: Facts, step: Step) -> Float[Array, "B"]:
    """Return the damage of the enemies and the bonus for kills."""
    kills = KILL_REWARD * step.killed[:, f.n :].sum(1)
    if not f.config.smac_reward:
        return step.events.damage[f.n :].sum(0) + kills
    # SMAC differences health and shield and takes the absolute value of the sum.
    change = _strength(step.before) - jnp.where(step.killed, 0.0, _strength(step.after))
    is_same = step.before.alive & (step.after.alive | step.killed)
    change = jnp.where(is_same, change, 0.0)[:, f.n :]
    return jnp.abs(change.sum(1) + kills)


def _strength(state: State) -> Float[Array, "B U"]:
    return state.health if state.shield is None else state.health + state.shield


def _own_rewards(f: Facts, step: Step, has_won: Array) -> Float[Array, "B N"]:
    """Return the reward of each agent by the weights of its unit type."""
    rows = rows_of(f, step.after)[..., : f.n]
    terms = {
        "damage": step.events.damage[f.n :].sum(0)[:, None],
        "kills": KILL_REWARD * step.killed[:, f.n :].sum(1, keepdims=True),
        "win": WIN_REWARD * has_won[:, None],
        "healing": step.events.healed[: f.n].sum(0)[:, None],
        "survival": -step.events.damage[: f.n].T,
        "sight": _seen_enemies(f, step.after),
    }
    total: Any = 0.0
    for name, term in terms.items():
        total = total + take(_weights(f, name), rows) * term
    return total


def _weights(f: Facts, name: str) -> np.ndarray:
    """Return a weight of each row of the table."""
    weights = dict(getattr(f.battle, "reward", ()))
    rows = [weights.get(unit.name, Weights()) for unit in f.table]
    return np.asarray([getattr(row, name) for row in rows], np.float32)


def _seen_enemies(f: Facts, state: State) -> Any:
    if not _weights(f, "sight").any():
        return 0.0
    return sees(f, state, view(f, state))[..., f.n :].sum(-1)
