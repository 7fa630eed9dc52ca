"""Comparison of battles with their reference twin (``smac_twin``), step by step.

The twin is teacher-forced: it takes each step from the state of the battle, so that differences do
not add up. Random parts of cooldowns are not compared, but must lie in their range.
"""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from smac_twin.acting import NO_OP, Actions
from smac_twin.enemies import Command, enemy_orders
from smac_twin.kinds import ENEMY
from smac_twin.observing import observe
from smac_twin.outcomes import outcome, reward
from smac_twin.stepping import step_world
from smac_twin.world import TICKS, Events, Unit

from jmarl.envs.battle.combat.paths import next_cells
from jmarl.envs.battle.scenarios.battle_spec import Battle, DrawnBattle
from jmarl.envs.battle.scenarios.terrain import walkable
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig


STOP, NORTH, SOUTH, EAST, WEST, FIRST_TARGETED = range(1, 7)
LOOP = 1 / 16
TOLERANCE = 1e-4
PERTURBATIONS = 24
LIMITS = {"pile": 0.02, "rounding": 2.0}
"""Largest differences other than ``TOLERANCE``.

Rounding matters in two cases. In a dense pile, pushes amplify it: the direction in which two units
that almost coincide are pushed apart depends on the last digits of their positions. A unit at the
very limit of its reach may fire, or first walk a little. A step that differs by more than the
tolerance is therefore compared with twins that start from positions rounded otherwise, by at most
one unit in the last place for each tick of a step. Positions must not differ from the twin's by
more than twice as much as theirs do, and everything else must equal one of them.
"""
EXACT = (
    "avail",
    "allies seen",
    "enemies seen",
    "last_target",
    "alive",
    "pending",
    "healing",
    "terminated",
    "truncated",
    "won",
)
"""Quantities that must be equal."""
OF_UNITS = ("health", "shield", "energy", "alive", "pending", "last_target")
OF_LIVING_UNITS = ("healing", "pace", "calm")
"""Fields of units. The latter have no meaning when a unit is dead."""


Differences = dict[str, float]
"""Largest difference between battle and twin of each quantity."""


class Worst(NamedTuple):
    """Largest difference of a quantity."""

    difference: float
    step: int
    env: int


class Moment(NamedTuple):
    """State of all environments, and the results of the step that led to it."""

    state: Any
    obs: Any
    won: np.ndarray
    result: Any = None
    """``Outcome`` of the step; None at the start."""


class Run(NamedTuple):
    """One step of the twin."""

    units: list[Unit]
    """Units after the step."""
    events: Events


class Comparison:
    """A battle, its compiled functions, and the largest differences from the twin."""

    def __init__(self, battle: Battle | DrawnBattle, **options: Any) -> None:
        self.battle = battle
        self.facts = Facts(battle, SmacConfig(own_position=True, **options))
        self.engine = smac_battle.make_engine(self.facts)
        self.cells = walkable(battle.terrain)
        self.paths = next_cells(battle.terrain)
        self.type_names = tuple(unit.name for unit in battle.units)
        self.is_v2 = battle.rules == "smacv2"
        self.actions = Actions(
            battle.n_allies,
            battle.n_enemies,
            has_healers="medivac" in ally_types(battle),
            layout=self.facts.config.layout,
            unit_ranges=self.is_v2,
        )
        self.worst: dict[str, Worst] = {}
        self.ends: collections.Counter[str] = collections.Counter()
        self.deviations: list[float] = []
        """Random parts of all cooldowns, in loops."""
        self.steps = 0
        self.rounded = 0
        """Steps that differ by rounding in a pile or at a limit of reach."""
        self._look = jax.jit(self._see)
        self._transition = jax.jit(self.engine.transition)

    def run(self, batch: int, steps: int, seed: int = 0) -> None:
        """Compare episodes up to their end, but no more than some steps.

        Actions are random in even environments, and those of ``nearest`` in odd ones.
        """
        key = jax.random.key(seed)
        rng = np.random.default_rng(seed)
        keys = jax.random.split(key, batch)
        draw = jax.jit(lambda: self.engine.first_state(self.engine.draw_starts(keys)))
        state = draw()
        now = self._moment(state)
        running = np.ones(batch, bool)
        for t in range(steps):
            action = choose_actions(rng, now)
            keys = jax.random.fold_in(key, t)
            keys = jax.random.split(keys, (len(self.engine.paths), batch))
            state, result = self._transition(keys, state, jnp.asarray(action))
            after = self._moment(state, result)
            for b in np.flatnonzero(running):
                self._note(t, b, self._compare_obs(now, b))
                self._note(t, b, self._compare_step(now, after, b, action[b]))
            running &= ~after.state.ended
            now = after
            if not running.any():
                break

    def faults(self) -> dict[str, Worst]:
        """Return the quantities that differ by more than they may."""
        differences = {name: worst.difference for name, worst in self.worst.items()}
        return {name: self.worst[name] for name in faults_of(differences)}

    def _see(self, state: Any) -> tuple:
        return self.engine.observe(state), self.engine.outcomes(state)["won"]

    def _moment(self, state: Any, result: Any = None) -> Moment:
        obs, won = self._look(state)
        return jax.tree.map(np.asarray, Moment(state, obs, won, result))

    def _note(self, step: int, env: int, differences: Differences) -> None:
        for name, difference in differences.items():
            worst = self.worst.get(name, Worst(-1.0, 0, 0))
            self.worst[name] = max(worst, Worst(difference, step, int(env)))

    def _compare_obs(self, now: Moment, b: int) -> Differences:
        units = self._units(now.state, b)
        twin, core = observe(units, self.actions, self.type_names), now.obs
        avail = self.actions.available(units, self.cells)
        return {
            "avail": apart(core.avail[b], avail),
            "own": apart(core.own[b], twin.own),
            "ally rows": apart(core.rows[0][b], twin.allies),
            "enemy rows": apart(core.rows[1][b], twin.enemies),
            "allies seen": apart(core.mask[0][b], twin.allies_seen),
            "enemies seen": apart(core.mask[1][b], twin.enemies_seen),
        }

    def _compare_step(
        self, now: Moment, after: Moment, b: int, action: np.ndarray
    ) -> Differences:
        self.steps += 1
        run = self._advance(now.state, b, action)
        differences = self._differences(after, b, run)
        if faults_of(differences):
            self.rounded += 1
            rng = np.random.default_rng(0)
            others = [
                self._advance(now.state, b, action, rng) for _ in range(PERTURBATIONS)
            ]
            differences = self._allow_rounding(after, b, [run, *others])
        else:
            shots = np.flatnonzero(run.events.fired)
            alive = [u for u in shots if run.units[u].alive]
            self.deviations += [_deviation(after, b, run, u) for u in alive]
        self.ends[self._end(run, after.state.steps[b])] += 1
        return differences

    def _advance(
        self,
        state: Any,
        b: int,
        action: np.ndarray,
        rng: np.random.Generator | None = None,
    ) -> Run:
        """Return a step of the twin, from positions that are rounded otherwise if asked for."""
        units = self._units(state, b)
        for unit in units if rng else ():
            unit.x, unit.y = (neighbor(rng, value) for value in (unit.x, unit.y))
        orders = self.actions.orders(units, action.tolist())
        orders += enemy_orders(units, self._commands(state, b), self.paths)
        return Run(units, step_world(units, orders, self.cells))

    def _allow_rounding(self, after: Moment, b: int, runs: list[Run]) -> Differences:
        """Return the least differences from some runs, of which the first is the exact one."""
        exact, *others = runs
        places = np.asarray([(unit.x, unit.y) for unit in exact.units])
        spread = max(farthest(run.units, places) for run in others)
        candidates = [self._differences(after, b, run) for run in runs]
        position = candidates[0]["position"]
        for candidate in candidates:
            del candidate["position"]
        best = min(candidates, key=lambda candidate: len(faults_of(candidate)))
        if position <= TOLERANCE:
            return best | {"position": position}
        return best | {"pile": position, "rounding": position / max(spread, 1e-9)}

    def _differences(self, after: Moment, b: int, run: Run) -> Differences:
        """Return the differences of states, rewards and verdicts after a step."""
        end = self._end(run, after.state.steps[b])
        total = np.ravel(after.result.reward[b])[0]
        return self._unit_differences(after.state, b, run.units) | {
            "position": farthest(run.units, after.state.position[b]),
            "cooldown": _cooldown_difference(after, b, run),
            "reward": apart(total, reward(run.units, run.events, end == "won")),
            "terminated": apart(
                after.result.terminated[b], end not in ("running", "limit")
            ),
            "truncated": apart(after.result.truncated[b], end == "limit"),
            "won": apart(after.won[b], end == "won"),
        }

    def _end(self, run: Run, steps: int) -> str:
        """Return how the episode ended in a step, or ``running``."""
        end = outcome(run.units, "smacv2" if self.is_v2 else "smac")
        is_late = steps >= self.battle.limit
        return "limit" if end == "running" and is_late else end

    def _unit_differences(self, state: Any, b: int, twin: list[Unit]) -> Differences:
        core = self._units(state, b)
        living = [u for u, unit in enumerate(twin) if unit.alive]
        differences = {}
        for name in (*OF_UNITS, *OF_LIVING_UNITS):
            # None in the state of a battle in which no unit has the property.
            if getattr(state, name, 0.0) is None:
                continue
            chosen = living if name in OF_LIVING_UNITS else range(len(twin))
            ours, theirs = ([getattr(w[u], name) for u in chosen] for w in (core, twin))
            differences[name] = apart(ours, theirs)
        return differences

    def _units(self, state: Any, b: int) -> list[Unit]:
        """Return the units of an environment as those of the twin."""
        rows = self.facts.rows if state.row is None else state.row[b]
        units = []
        for u, row in enumerate(rows):
            fields = {"last_target": int(state.last_target[b, u])}
            for name in ("health", "shield", "energy", "cooldown", "calm", "pace"):
                column = getattr(state, name)
                fields[name] = 0.0 if column is None else float(column[b, u])
            for name in ("pending", "healing"):
                column = getattr(state, name)
                fields[name] = column is not None and bool(column[b, u])
            if u < self.facts.n:
                fields["last_action"] = int(state.last_action[b, u])
            x, y = map(float, state.position[b, u])
            team = int(u >= self.facts.n)
            if team == ENEMY:
                fields["strength"] = self.battle.enemy_scale
            units.append(Unit(self.facts.table[row].name, team, x, y, **fields))
        return units

    def _commands(self, state: Any, b: int) -> list[Command]:
        """Return the commands of the enemies of an environment."""
        battle = self.battle
        if isinstance(battle, DrawnBattle):
            return [Command("pursue")] * battle.n_enemies
        orders = [
            battle.enemies[group].order for _, group in battle.roster(battle.enemies)
        ]
        places = [tuple(map(float, place)) for place in state.destination[b]]
        return [
            Command(order.kind, place)
            for order, place in zip(orders, places, strict=True)
        ]


def _deviation(after: Moment, b: int, run: Run, u: int) -> float:
    """Return the random part of the cooldown of a unit that fired, in loops."""
    return (float(after.state.cooldown[b, u]) - run.units[u].cooldown) / LOOP


def _cooldown_difference(after: Moment, b: int, run: Run) -> float:
    """Return the largest difference of cooldowns, apart from random parts in their range."""
    largest = 0.0
    for u, unit in enumerate(run.units):
        if unit.alive:
            loops = _deviation(after, b, run, u)
            if run.events.fired[u]:
                loops -= min(max(loops, -1.0), 2.0)
            largest = max(largest, abs(loops) * LOOP)
    return largest


def apart(core: Any, twin: Any) -> float:
    """Return the largest difference between two arrays of equal shapes."""
    core, twin = np.asarray(core, float), np.asarray(twin, float)
    assert core.shape == twin.shape
    return float(np.abs(core - twin).max(initial=0.0))


def faults_of(differences: Differences) -> list[str]:
    """Return the quantities that differ by more than they may."""
    limits = dict.fromkeys(EXACT, 0.0) | LIMITS
    return [
        name
        for name, difference in differences.items()
        if difference > limits.get(name, TOLERANCE)
    ]


def neighbor(rng: np.random.Generator, value: float) -> float:
    """Return a number at most ``TICKS`` units in the last place of single precision away."""
    unit = float(np.spacing(np.float32(value)))
    return value + unit * int(rng.integers(-TICKS, TICKS + 1))


def farthest(units: list[Unit], places: np.ndarray) -> float:
    """Return the largest distance along an axis of a living unit from its place."""
    offsets = [
        max(abs(unit.x - x), abs(unit.y - y))
        for unit, (x, y) in zip(units, places, strict=True)
        if unit.alive
    ]
    return max(offsets, default=0.0)


def ally_types(battle: Battle | DrawnBattle) -> set[str]:
    """Return the types that allies may have."""
    if isinstance(battle, DrawnBattle):
        return {"medivac"} if battle.race == "terran" else set()
    return {name for group in battle.allies for name, _ in group.units}


def choose_actions(rng: np.random.Generator, now: Moment) -> np.ndarray:
    """Return actions ``[B, N]`` at random, or in every other environment of ``nearest``."""
    avail = now.obs.avail
    score = np.where(avail, rng.random(avail.shape), -1.0)
    # In two thirds of the steps a random player prefers targets, so that there are fights.
    score[..., FIRST_TARGETED:] += avail[..., FIRST_TARGETED:] * (rng.random() < 2 / 3)
    action = score.argmax(-1)
    for b in range(1, len(avail), 2):
        action[b] = nearest(now.state, b, avail[b])
    return action


def nearest(state: Any, b: int, avail: np.ndarray) -> np.ndarray:
    """Return actions that aim at the first target on offer, or walk to the nearest enemy."""
    n = len(avail)
    position, alive = state.position[b], state.health[b] > 0
    enemies = position[n:][alive[n:]]
    actions = []
    for i in range(n):
        targets = np.flatnonzero(avail[i, FIRST_TARGETED:])
        if avail[i, NO_OP]:
            actions.append(NO_OP)
        elif targets.size:
            actions.append(FIRST_TARGETED + targets[0])
        else:
            actions.append(approach(position[i], enemies, avail[i]))
    return np.asarray(actions)


def approach(place: np.ndarray, enemies: np.ndarray, avail: np.ndarray) -> int:
    """Return the move along the axis on which the nearest enemy is farther away."""
    if not len(enemies):
        return STOP
    offsets = enemies - place
    dx, dy = offsets[np.abs(offsets).sum(-1).argmin()]
    moves = [EAST if dx > 0 else WEST, NORTH if dy > 0 else SOUTH]
    if abs(dy) > abs(dx):
        moves.reverse()
    return next((move for move in moves if avail[move]), STOP)
