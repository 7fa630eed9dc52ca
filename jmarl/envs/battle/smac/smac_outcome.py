"""Rewards and ends of episodes under the rules of SMAC."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.combat.combatants import take
from jmarl.envs.battle.combat.tick import Events
from jmarl.envs.battle.scenarios.battle_spec import Weights
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_observe import sees, view
from jmarl.envs.battle.smac.smac_state import State, rows_of, trait
from jmarl.envs.next_step import Outcome


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
    allies_beaten, enemies_beaten = beaten(f, step.after)
    has_won = enemies_beaten & ~allies_beaten
    terminated = enemies_beaten | allies_beaten
    limit = f.choose(f.limits, step.after.choice)
    is_late = step.after.steps >= limit
    reward = _rewards(f, step, has_won) * MAX_REWARD
    return Outcome(
        reward=reward / _most(f, step)[..., None],
        terminated=terminated,
        truncated=~terminated & is_late,
    )


def outcomes(f: Facts, state: State) -> dict[str, Any]:
    """Return whether the allies have won, and the health that their healers restored."""
    names = {"won": won(f, state)}
    return names if state.healed is None else names | {"healed": state.healed}


def won(f: Facts, state: State) -> Bool[Array, "B"]:
    """Return whether the enemies are beaten and the allies are not."""
    allies_beaten, enemies_beaten = beaten(f, state)
    return enemies_beaten & ~allies_beaten


def beaten(f: Facts, state: State) -> tuple[Bool[Array, "B"], Bool[Array, "B"]]:
    """Return whether the allies are beaten, and whether the enemies are.

    Allies are beaten if none that fights is left. Enemies are beaten if nobody or a single healer
    is left; in SMACv2, any number of healers.
    """
    standing = _standing(f, state)
    fighting = standing & ~_heals(f, state)
    few = True if f.is_v2 else standing[:, f.n :].sum(1) <= 1
    allies_beaten = ~fighting[:, : f.n].any(1)
    enemies_beaten = ~fighting[:, f.n :].any(1) & few
    return allies_beaten, enemies_beaten


def _heals(f: Facts, state: State) -> Any:
    return trait(f, rows_of(f, state), "heal") > 0


def _standing(f: Facts, state: State) -> Bool[Array, "B U"]:
    """Return the units that live, have not arrived yet, or were withdrawn alive."""
    if state.arrives is None or state.leaves is None:
        return state.alive
    steps = state.steps[:, None]
    exists = rows_of(f, state) != f.nobody
    will_arrive = (state.arrives > steps) & exists
    has_left = state.leaves <= steps
    return state.alive | will_arrive | has_left


def _most(f: Facts, step: Step) -> Float[Array, "*"]:
    """Return the maximal sum of SMAC's rewards before scaling."""
    rows = rows_of(f, step.after)[..., f.n :]
    strength = trait(f, rows, "health") + trait(f, rows, "shield")
    damage = strength.sum(-1)
    count = (rows != f.nobody).sum(-1)
    most = KILL_REWARD * count + WIN_REWARD + damage
    return jnp.asarray(most)


def _rewards(f: Facts, step: Step, has_won: Array) -> Float[Array, "B N"]:
    """Return SMAC's team reward, mixed with each agent's own if the battle has weights."""
    team = _team_reward(f, step) + WIN_REWARD * has_won
    batch = team.shape[0]
    shared = jnp.broadcast_to(team[:, None], (batch, f.n))
    share = getattr(f.battle, "team_reward", 1.0)
    if share == 1:
        return shared
    own = _own_rewards(f, step, has_won)
    return share * shared + (1 - share) * own


def _team_reward(f: Facts, step: Step) -> Float[Array, "B"]:
    """Return the damage of the enemies and the bonus for kills."""
    kills = KILL_REWARD * step.killed[:, f.n :].sum(1)
    if f.config.smac_reward:
        # SMAC takes the absolute value of the sum.
        change = _lost_strength(step)[:, f.n :]
        return jnp.abs(change.sum(1) + kills)
    damage = step.events.damage[f.n :]
    return damage.sum(0) + kills


def _lost_strength(step: Step) -> Float[Array, "B U"]:
    """Return the difference of health and shield of each unit, 0 if it arrived or left."""
    before = _strength(step.before)
    after = jnp.where(step.killed, 0.0, _strength(step.after))
    stays = step.after.alive | step.killed
    is_same = step.before.alive & stays
    return jnp.where(is_same, before - after, 0.0)


def _strength(state: State) -> Float[Array, "B U"]:
    if state.shield is None:
        return state.health
    return state.health + state.shield


def _own_rewards(f: Facts, step: Step, has_won: Array) -> Float[Array, "B N"]:
    """Return the reward of each agent by the weights of its unit type."""
    rows = rows_of(f, step.after)[..., : f.n]
    total: Any = 0.0
    for name, term in _reward_terms(f, step, has_won).items():
        weight = take(_weights(f, name), rows)
        total = total + weight * term
    return total


def _reward_terms(f: Facts, step: Step, has_won: Array) -> dict[str, Any]:
    """Return the terms of an agent's own reward by the names of their weights."""
    damage_dealt = step.events.damage[f.n :].sum(0)
    damage_taken = step.events.damage[: f.n].T
    healed = step.events.healed[: f.n].sum(0)
    kills = step.killed[:, f.n :].sum(1)
    return {
        "damage": damage_dealt[:, None],
        "kills": KILL_REWARD * kills[:, None],
        "win": WIN_REWARD * has_won[:, None],
        "healing": healed[:, None],
        "survival": -damage_taken,
        "sight": _seen_enemies(f, step.after),
    }


def _weights(f: Facts, name: str) -> np.ndarray:
    """Return a weight of each row of the table."""
    weights = dict(getattr(f.battle, "reward", ()))
    rows = [weights.get(unit.name, Weights()) for unit in f.table]
    column = [getattr(row, name) for row in rows]
    return np.asarray(column, np.float32)


def _seen_enemies(f: Facts, state: State) -> Any:
    if not _weights(f, "sight").any():
        return 0.0
    seen = sees(f, state, view(f, state))
    enemies = seen[..., f.n :]
    return enemies.sum(-1)
