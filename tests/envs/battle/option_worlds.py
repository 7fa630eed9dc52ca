"""Compiled battles for tests of their optional features: joins, times, zones, views and so on.

``Episodes`` plays batches of whole episodes of any battle. ``World`` adds single states with given
units, as ``smac_worlds.Arena`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smac_worlds import BATCH, STOP, Arena, Case

from jmarl.envs.battle.scenarios import scenario_file
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_actions import layout
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.types import EntityObs


DEVIATION = 1 / 32
"""Random part of all cooldowns in ``Episodes`` whose cooldowns are even."""


class Step(NamedTuple):
    """Results of one step, as NumPy arrays."""

    state: Any
    obs: EntityObs
    reward: np.ndarray
    """Reward of each agent, ``[B, N]``."""
    terminated: np.ndarray
    truncated: np.ndarray
    won: np.ndarray


class Episodes:
    """A compiled battle, with functions of batches of states as NumPy arrays.

    Args:
        battle: the battle.
        even: give all cooldowns the same deviation, so that battles of different sizes can be
            compared.
        **options: fields of ``SmacConfig``.
    """

    def __init__(self, battle: Any, *, even: bool = False, **options: Any) -> None:
        self.facts = Facts(battle, SmacConfig(**options))
        self.n, self.m = self.facts.n, self.facts.m
        self.engine = smac_battle.make_engine(self.facts)
        self.spec = self.engine.spec
        self.even = even
        self._step = jax.jit(self._advance)
        self._starts = jax.jit(self.engine.draw_starts)
        self._first = jax.jit(self._begin)
        self._observe = jax.jit(self.engine.observe)

    def _begin(self, keys: Any) -> tuple[Any, EntityObs]:
        state = self.engine.first_state(self.engine.draw_starts(keys))
        return state, self.engine.observe(state)

    def _advance(self, keys: Any, state: Any, action: Any) -> tuple:
        state, outcome = self.engine.transition(keys, state, action)
        return (
            state,
            self.engine.observe(state),
            *outcome,
            self.engine.outcomes(state)["won"],
        )

    def starts(self, batch: int, seed: int = 0) -> Any:
        """Draw starts."""
        return _to_numpy(self._starts(_keys(batch, seed)))

    def first(self, batch: int, seed: int = 0) -> tuple[Any, EntityObs]:
        """Return the first states of episodes, and their observations."""
        return _to_numpy(self._first(_keys(batch, seed)))

    def step(self, state: Any, action: np.ndarray, seed: int = 0) -> Step:
        """Advance all episodes by one step."""
        shape = (len(self.engine.paths), len(action))
        keys = jax.random.split(jax.random.key(seed), shape)
        with pytest.MonkeyPatch.context() as patch:
            if self.even:
                patch.setattr(smac_battle, "_deviations", _even_deviations)
            after, obs, reward, *flags = self._step(keys, state, jnp.asarray(action))
        reward = np.broadcast_to(reward, action.shape)
        return Step(*_to_numpy((after, obs)), reward, *_to_numpy(flags))

    def observe(self, state: Any) -> EntityObs:
        """Return observations."""
        return _to_numpy(self._observe(state))

    def stop(self, batch: int) -> np.ndarray:
        """Return the action of agents that do nothing."""
        return np.full((batch, self.n), STOP)

    def named(self, name: str) -> list[int]:
        """Return the actions with a name, such as ``spot`` or ``heal``."""
        return [a for a, row in enumerate(layout(self.facts)) if row.name == name]


def _keys(batch: int, seed: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), batch)


def _even_deviations(f: Facts, keys: Any) -> jax.Array:
    return jnp.full((8, f.n + f.m, keys.shape[0]), DEVIATION)


def _to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


class World(Episodes):
    """Battle of a scenario file, with states of given units (``smac_worlds.Case``)."""

    def __init__(self, text: str, *, even: bool = False, **options: Any) -> None:
        battle = scenario_file.parse(text, "world.yaml", "world")
        super().__init__(battle, even=even, **options)
        self.arena = Arena(text, **options)

    def case(self) -> Case:
        """Return a case without living units."""
        return Case(self.arena)

    def aim(self, case: Case, ally: int, name: str, target: int) -> None:
        """Order an ally to attack, heal or ward another unit."""
        case.actions[ally] = self.named(name)[self.rank(ally, target)]

    def rank(self, ally: int, target: int) -> int:
        """Return the rank of a unit among the enemies, or among the other allies."""
        return target - self.n if target >= self.n else target - (target > ally)

    def see(self, cases: Sequence[Case]) -> EntityObs:
        """Return the observations of cases."""
        return self.observe(self.arena.state(cases))

    def run(self, cases: Sequence[Case], steps: int = 1, seed: int = 0) -> list[Step]:
        """Return the results of steps, in each of which the allies act the same."""
        state = self.arena.state(cases)
        action = self.stop(BATCH)
        for b, case in enumerate(cases):
            for ally, choice in case.actions.items():
                action[b, ally] = choice
        record = []
        for t in range(steps):
            record.append(self.step(state, action, seed + t))
            state = record[-1].state
        return record

    def sees(self, obs: EntityObs, case: int, ally: int, target: int) -> bool:
        """Return whether an ally sees a unit."""
        mask = obs.mask[1 if target >= self.n else 0]
        return bool(mask[case, ally, self.rank(ally, target)])

    def offers(
        self, obs: EntityObs, case: int, ally: int, name: str, target: int
    ) -> bool:
        """Return whether an ally may attack, heal or ward a unit."""
        action = self.named(name)[self.rank(ally, target)]
        return bool(obs.avail[case, ally, action])


def random_actions(
    obs: EntityObs, rng: np.random.Generator, targeted: int, share: float = 0.7
) -> np.ndarray:
    """Draw available actions, by preference those from index ``targeted`` on.

    Absent agents get action 0.
    """
    score = rng.random(obs.avail.shape)
    prefers = rng.random(obs.alive.shape) < share
    score[..., targeted:] += prefers[..., None]
    return np.where(obs.avail, score, -1.0).argmax(-1)


ABILITIES = """
limit: 60
orders: hold
allies:
  - {units: {marine: 1, medivac: 1, stalker: 1, spine_crawler: 1}, at: [16, 16]}
  - {units: {wall: 1, guard: 2, scout: 2, priest: 1}, at: [16, 16]}
enemies:
  - {units: {marine: 1, zealot: 1, baneling: 1, gun: 1}, at: [16, 16]}
units:
  wall: {like: marine, health: 5000}
  guard: {like: marauder, abilities: [ward]}
  scout: {like: marine, targets: none, damage: 0, abilities: [spot]}
  priest: {like: medivac, abilities: [bless]}
  gun: {like: marine, cooldown: 0}
abilities:
  ward: {amount: 2, duration: 1.5, cooldown: 2, attack_range: 5}
  spot: {amount: 4, duration: 1.5, cooldown: 3, attack_range: 6}
  bless: {like: ward, amount: 9, duration: 1.5}
"""
"""A gun fires in each tick, and a wall survives that for some steps."""


@functools.cache
def world_of_abilities() -> World:
    """Return a world of units with all abilities."""
    return World(ABILITIES, even=True)
