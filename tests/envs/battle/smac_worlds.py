"""Small battles with given units, for tests of the rules of SMAC.

An ``Arena`` is a compiled battle between two teams that have every unit type. A ``Case`` is a state
of it in which only the units that a test adds are alive. All cases of a test run as one batch of a
fixed size, so tests with the same arena share one program.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.envs.battle.scenarios import scenario_file
from jmarl.envs.battle.smac import smac_battle, smac_state
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.types import EntityObs


BATCH = 32
"""Cases in a program. Missing ones are repetitions of the first."""
NEVER = 1e4
"""Cooldown in seconds that keeps a weapon from firing."""
NO_OP, STOP, NORTH, SOUTH, EAST, WEST = range(6)
N_OWN_ACTIONS = 6
TEAM = {
    "marauder": 2,
    "marine": 3,
    "medivac": 2,
    "colossus": 2,
    "stalker": 2,
    "zealot": 4,
    "baneling": 3,
    "zergling": 2,
    "hydralisk": 1,
    "spine_crawler": 1,
    "runner": 1,
    "scout": 1,
}
"""Units of both teams of an arena."""
OWN_UNITS = """
units:
  runner: {like: zergling, letter: r, speed: 8}
  scout: {like: stalker, letter: t, targets: air}
"""


class Case:
    """State of an arena in which all units are dead but those that are added.

    Units are numbers. Enemies do not shoot unless ``cooldown=0`` is given.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.changes: dict[int, dict[str, float]] = {}
        self.actions: dict[int, int] = {}
        self.last_actions: dict[int, int] = {}
        self.steps = 0

    def ally(self, name: str, x: float, y: float, **state: float) -> int:
        """Add an ally; ``state`` has values of the state, such as ``health``."""
        return self._add(0, self.arena.n, name, {"x": x, "y": y, **state})

    def enemy(self, name: str, x: float, y: float, **state: float) -> int:
        """Add an enemy."""
        state = {"cooldown": NEVER, "x": x, "y": y, **state}
        return self._add(self.arena.n, len(self.arena.names), name, state)

    def _add(self, first: int, stop: int, name: str, state: dict[str, float]) -> int:
        units = range(first, stop)
        unit = next(
            u for u in units if self.arena.names[u] == name and u not in self.changes
        )
        self.changes[unit] = state
        return unit

    def move(self, ally: int, direction: int) -> None:
        """Order an ally to move: ``NORTH``, ``SOUTH``, ``EAST`` or ``WEST``."""
        self.actions[ally] = direction

    def aim(self, ally: int, target: int) -> None:
        """Order an ally to attack an enemy, or to heal another ally."""
        self.actions[ally] = self.arena.action(ally, target)


class Trace(NamedTuple):
    """States before and after each step of all cases; NumPy arrays with leading T + 1 and B."""

    state: Any
    reward: np.ndarray
    """Reward of each step, ``[T, B]``."""
    terminated: np.ndarray
    truncated: np.ndarray
    won: np.ndarray

    def lost(self, case: int, unit: int) -> float:
        """Return the health and shield that a unit has lost since the start."""
        total = self.state.health + self.state.shield
        return float(total[0, case, unit] - total[-1, case, unit])

    def walk(self, case: int, unit: int) -> np.ndarray:
        """Return the difference between the last and the first position of a unit."""
        return self.state.position[-1, case, unit] - self.state.position[0, case, unit]


class Arena:
    """Battle between two teams with all unit types, compiled for ``BATCH`` environments."""

    def __init__(self, text: str, **options: Any) -> None:
        battle = scenario_file.parse(text, "arena.yaml", "arena")
        facts = smac_state.Facts(battle, SmacConfig(**options))
        self.facts = facts
        self.n, self.m = facts.n, facts.m
        self.names = [facts.table[row].name for row in facts.rows]
        self.engine = smac_battle.make_engine(facts)
        self._transition = jax.jit(self.engine.transition)
        self._observe = jax.jit(self.engine.observe)
        self._outcomes = jax.jit(self.engine.outcomes)

    def action(self, ally: int, target: int) -> int:
        """Return the action of an ally that aims at another unit."""
        if target >= self.n:
            return N_OWN_ACTIONS + target - self.n
        return N_OWN_ACTIONS + self.m + target - (target > ally)

    @functools.cached_property
    def start(self) -> Any:
        """Drawn starts as NumPy arrays."""
        keys = jax.random.split(jax.random.key(0), BATCH)
        draw = jax.jit(lambda: self.engine.first_state(self.engine.draw_starts(keys)))
        return jax.tree.map(np.asarray, draw())

    def case(self) -> Case:
        """Return a case without living units."""
        return Case(self)

    def state(self, cases: Sequence[Case]) -> Any:
        """Return the state of all cases."""
        assert len(cases) <= BATCH
        start = jax.tree.map(np.array, self.start)
        full = start.health.copy()
        start.health[:] = 0.0
        start.position[:] = 16.0
        for b in range(BATCH):
            case = cases[b] if b < len(cases) else cases[0]
            start.steps[b] = case.steps
            for ally, action in case.last_actions.items():
                start.last_action[b, ally] = action
            for unit, changes in case.changes.items():
                start.health[b, unit] = full[b, unit]
                _change(start, b, unit, changes)
        return jax.tree.map(jnp.asarray, start)

    def run(self, cases: Sequence[Case], steps: int = 1, seed: int = 0) -> Trace:
        """Return the trace of some steps, in each of which the allies act the same."""
        state = self.state(cases)
        action = np.full((BATCH, self.n), STOP)
        for b, case in enumerate(cases):
            for ally, choice in case.actions.items():
                action[b, ally] = choice
        return self.play(state, [action] * steps, seed)

    def play(self, state: Any, actions: Sequence[np.ndarray], seed: int = 0) -> Trace:
        """Return the trace of given actions ``[B, N]`` for each step."""
        states, outcomes, wins = [state], [], []
        shape = (len(self.engine.paths), BATCH)
        for t, action in enumerate(actions):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), t), shape)
            state, outcome = self._transition(keys, state, jnp.asarray(action))
            states.append(state)
            outcomes.append(outcome)
            wins.append(self._outcomes(state)["won"])
        return Trace(
            state=jax.tree.map(
                lambda *x: np.stack([np.asarray(y) for y in x]), *states
            ),
            reward=np.stack(
                [np.reshape(o.reward, (BATCH, -1))[:, 0] for o in outcomes]
            ),
            terminated=np.stack([o.terminated for o in outcomes]),
            truncated=np.stack([o.truncated for o in outcomes]),
            won=np.stack(wins),
        )

    def observe(self, cases: Sequence[Case]) -> EntityObs:
        """Return the observations of all cases as NumPy arrays."""
        return jax.tree.map(np.asarray, self._observe(self.state(cases)))


def _change(state: Any, b: int, unit: int, changes: dict[str, float]) -> None:
    for name, value in changes.items():
        if name in ("x", "y"):
            state.position[b, unit, "xy".index(name)] = value
        else:
            getattr(state, name)[b, unit] = value


@functools.cache
def arena(
    terrain: str = "open", rules: str = "smac", orders: str = "hold", **options: Any
) -> Arena:
    """Return an arena with all unit types in both teams.

    Args:
        terrain: name of the terrain.
        rules: ``smac`` or ``smacv2``.
        orders: orders of the enemies, as in a scenario file.
        **options: fields of ``SmacConfig``.
    """
    counts = ", ".join(f"{name}: {count}" for name, count in TEAM.items())
    lines = [f"rules: {rules}", f"terrain: {terrain}", f"orders: {orders}"]
    for team in ("allies", "enemies"):
        lines += [f"{team}:", f"  - units: {{{counts}}}", "    at: [16, 16]"]
    return Arena("\n".join(lines) + OWN_UNITS, **options)
