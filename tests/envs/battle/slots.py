"""Other slots for the units of a battle: a part of them, or a permutation."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from option_worlds import Episodes
from smac_worlds import NO_OP

from jmarl.envs.battle.smac.smac_actions import layout
from jmarl.types import EntityObs


UNITS = (
    *("position", "health", "cooldown", "shield", "energy", "ward", "ward_armor"),
    *("row", "arrives", "leaves", "calm", "healing", "pending", "pace", "last_target"),
)
ALLIES = ("facing", "extra_sight", "spotted", "last_action")
ENEMIES = ("order", "destination", "sighted")
PAIRS = ("unlucky", "luck")


class Slots:
    """Slots of a battle that some units of another battle take.

    Args:
        old: the other battle.
        new: the battle.
        allies: slot in ``old`` of each ally of ``new``.
        enemies: slot in ``old`` of each enemy of ``new``, counted from 0.
    """

    def __init__(
        self, old: Episodes, new: Episodes, allies: np.ndarray, enemies: np.ndarray
    ) -> None:
        self.old, self.new = old, new
        self.allies, self.enemies = np.asarray(allies), np.asarray(enemies)
        self.units = np.concatenate([self.allies, old.n + self.enemies])
        self.others = np.stack([np.delete(self.allies, i) for i in range(new.n)])
        columns = [[self._column(i, a) for a in layout(new.facts)] for i in self.allies]
        self.columns = np.asarray(columns)
        """Action of ``old`` that equals each action of ``new``, ``[N, A]``."""

    def _column(self, ally: int, action: Any) -> int:
        """Return the action of an ally of ``old`` that equals an action of ``new``."""
        if action.enemy >= 0:
            action = action._replace(enemy=int(self.enemies[action.enemy]))
        if action.slot >= 0:
            rank = list(self.allies).index(ally)
            slot = self._slots(rank)[action.slot]
            action = action._replace(slot=int(slot))
        return layout(self.old.facts).index(action)

    def _slots(self, rank: int) -> np.ndarray:
        """Return the slot in ``old`` of each other ally that an ally of ``new`` observes."""
        return self.others[rank] - (self.others[rank] > self.allies[rank])

    def state(self, state: Any) -> Any:
        """Return the state of ``new`` that equals a state of ``old``."""
        keys = jax.random.split(jax.random.key(0), len(state.steps))
        engine = self.new.engine
        shapes = jax.eval_shape(
            lambda: engine.first_state(engine.draw_starts(keys)),
        )
        fields = {
            name: self._field(name, getattr(state, name))
            for name in state.__dataclass_fields__
            if getattr(shapes, name) is not None
        }
        return shapes.replace(**fields)

    def _field(self, name: str, values: np.ndarray) -> np.ndarray:
        if name in UNITS:
            picked = values[:, self.units]
            return self._targets(picked) if name == "last_target" else picked
        if name in ALLIES:
            picked = values[:, self.allies]
            return self.actions(picked) if name == "last_action" else picked
        if name in ENEMIES:
            return values[:, self.enemies]
        if name in PAIRS:
            return values[:, self.allies][:, :, self.enemies]
        return values

    def _targets(self, target: np.ndarray) -> np.ndarray:
        rank = np.full(self.old.n + self.old.m + 1, -1)
        rank[self.units] = np.arange(len(self.units))
        return rank[target]

    def actions(self, action: np.ndarray) -> np.ndarray:
        """Return the actions of ``new`` that equal actions of its units in ``old``."""
        rank = np.full((self.new.n, self.old.spec.n_actions), NO_OP)
        agents = np.arange(self.new.n)
        rank[agents[:, None], self.columns] = np.arange(self.new.spec.n_actions)
        return rank[agents, action]

    def obs(self, obs: EntityObs) -> EntityObs:
        """Return the observations of ``new`` that equal observations of ``old``."""
        avail = np.take_along_axis(obs.avail[:, self.allies], self.columns[None], -1)
        rows, mask = (
            (self._friends(x[:, self.allies]), y[:, self.allies][:, :, self.enemies])
            for x, y in (obs.rows, obs.mask)
        )
        return obs.replace(
            own=obs.own[:, self.allies],
            alive=obs.alive[:, self.allies],
            joined=obs.joined[:, self.allies],
            unit_class=obs.unit_class[:, self.allies],
            avail=avail,
            rows=rows,
            mask=mask,
            state=obs.state.replace(
                rows=self._teams(obs.state.rows), mask=self._teams(obs.state.mask)
            ),
        )

    def _friends(self, x: np.ndarray) -> np.ndarray:
        """Return the rows of the other allies in the order of ``new``."""
        slots = [x[:, rank, self._slots(rank)] for rank in range(self.new.n)]
        return np.stack(slots, axis=1)

    def _teams(self, pair: tuple[Any, ...]) -> tuple[Any, ...]:
        allies, enemies = pair
        return allies[:, self.allies], enemies[:, self.enemies]


def assert_same_obs(ours: EntityObs, theirs: EntityObs, atol: float) -> None:
    """Check that observations are equal."""
    paths, _ = jax.tree_util.tree_flatten_with_path(ours)
    for (path, x), y in zip(paths, jax.tree.leaves(theirs), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, atol=atol, err_msg=name)
