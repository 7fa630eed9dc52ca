"""What the allies see. Observations are built once a step, for the agents alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.rules import (
    MAP_SIZE,
    N_OWN_ACTIONS,
    STOP,
    UNITS,
    BattleConfig,
    Scenario,
)
from jmarl.envs.battle.state import Visible, distance, present, trait
from jmarl.types import CentralState, EntityObs, Group, Spec


OWN_WIDTH = 4 + UNITS.count
"""Health fraction, x and y over the map's side, cooldown ratio, type."""


class ObsCodec(NamedTuple):
    """Observations from the visible part of the state: ``types.ObsCodec``."""

    scenario: Scenario
    config: BattleConfig

    def encode(self, state: Visible) -> Visible:
        """The fields that ``observe`` reads."""
        return Visible(
            **{name: getattr(state, name) for name in Visible.__dataclass_fields__}
        )

    def decode(self, encoded_obs: Visible) -> EntityObs:
        """The observations of that state."""
        return observe(self.scenario, self.config, encoded_obs)

    def empty(self, *batch: int) -> Visible:
        """Zeros in the shape of a encoded_obs."""
        units = (*batch, self.scenario.n_units)
        return Visible(
            position=jnp.zeros((*units, 2)),
            health=jnp.zeros(units),
            cooldown=jnp.zeros(units),
            kind=jnp.zeros(units, jnp.int32),
            heading=jnp.zeros((*units, 2)),
            attack=jnp.zeros(units, jnp.int32),
            steps=jnp.zeros(batch, jnp.int32),
        )


def spec(scenario: Scenario, config: BattleConfig) -> Spec:
    """Shapes and action targets: action 5 + j shoots at the j-th enemy."""
    n_allies, n_enemies = scenario.n_allies, scenario.n_enemies
    width = 6 + config.last_targeted + UNITS.count
    targets = tuple(range(n_allies - 1, n_allies - 1 + n_enemies))
    return Spec(
        n_agents=n_allies,
        n_actions=N_OWN_ACTIONS + n_enemies,
        own_width=OWN_WIDTH,
        groups=(
            Group("allies", n_allies - 1, width, n_allies, OWN_WIDTH),
            Group("enemies", n_enemies, width, n_enemies, OWN_WIDTH),
        ),
        global_width=1,
        episode_limit=episode_limit(scenario, config),
        action_target=(-1,) * N_OWN_ACTIONS + targets,
        n_unit_classes=UNITS.count,
        outcomes=("won",),
        obs_codec=ObsCodec(scenario, config),
        fixed_team=not scenario.choices,
    )


def episode_limit(scenario: Scenario, config: BattleConfig) -> int:
    """The most steps that an episode can have."""
    limit = (
        scenario.smac_limit
        if config.smac_limit and scenario.smac_limit
        else scenario.limit
    )
    return limit if config.exact_limit else limit + 1


def observe(scenario: Scenario, config: BattleConfig, state: Visible) -> EntityObs:
    """The entity observations of all allies, and the central state."""
    n = scenario.n_allies
    alive, there = state.alive, present(scenario, state.kind)
    own = _own_rows(state)
    seen, in_reach = _sights(scenario, state)
    rows = _rows(scenario, config, state, seen)
    batch = alive.shape[0]
    return EntityObs(
        own=own[:, :n],
        rows=rows,
        mask=_split(scenario, seen),
        avail=_available(alive[:, :n], there[:, :n], in_reach[:, :, n:]),
        alive=alive[:, :n],
        joined=jnp.zeros((batch, n), bool),
        unit_class=jnp.where(there, state.kind, 0)[:, :n],
        state=CentralState(
            features=(state.steps / episode_limit(scenario, config))[:, None],
            rows=(own[:, :n], own[:, n:]),
            mask=(alive[:, :n], alive[:, n:]),
        ),
    )


def _own_rows(state: Visible) -> Float[Array, "B U F"]:
    """A unit's own features, from no viewer's point of view; zero for the dead."""
    condition, position, charge, kind = _features(state)
    rows = jnp.concatenate([condition, position / MAP_SIZE, charge, kind], axis=-1)
    return jnp.where(state.alive[..., None], rows, 0.0)


def _features(state: Visible) -> tuple[Array, Array, Array, Array]:
    """Health fraction, position, cooldown ratio, one-hot type; each [B, U, ...]."""
    health = state.health / trait(UNITS.health, state.kind)
    charge = jnp.clip(state.cooldown / trait(UNITS.cooldown, state.kind), 0.0, 1.0)
    return (
        health[..., None],
        state.position,
        charge[..., None],
        jax.nn.one_hot(state.kind, UNITS.count),
    )


def _sights(
    scenario: Scenario, state: Visible
) -> tuple[Bool[Array, "B N U"], Bool[Array, "B N U"]]:
    """Which units each ally sees, and which it could shoot at: alive both, and nearer than its sight or its reach."""
    n = scenario.n_allies
    x, y, alive = state.position[..., 0], state.position[..., 1], state.alive
    kind = state.kind[:, :n, None]
    apart = distance(x[:, None] - x[:, :n, None], y[:, None] - y[:, :n, None])
    both = alive[:, None] & alive[:, :n, None]
    return both & (apart < trait(UNITS.sight, kind)), both & (
        apart < trait(UNITS.reach, kind)
    )


def _rows(
    scenario: Scenario, config: BattleConfig, state: Visible, seen: Bool[Array, "B N U"]
) -> tuple[Float[Array, "B N N-1 F"], Float[Array, "B N M F"]]:
    """Rows of the other allies and of the enemies.

    Only the position depends on the viewer, so one row for each *seen* unit is built, and the
    viewer's origin and scale are applied to the two columns that need them.
    """
    n = scenario.n_allies
    condition, position, charge, kind = _features(state)
    targeted = (_last_targeted(scenario, state),) if config.last_targeted else ()
    unit = jnp.concatenate(
        [condition, position, state.heading, *targeted, charge, kind], axis=-1
    )
    origin = jnp.zeros_like(unit[:, :n]).at[..., 1:3].set(position[:, :n])
    scale = (
        jnp.ones_like(unit[:, :n])
        .at[..., 1:3]
        .set(trait(UNITS.sight, state.kind[:, :n])[..., None])
    )

    def relative(mask: Array, rows: Array) -> Array:
        return jnp.where(
            mask[..., None], (rows - origin[:, :, None]) / scale[:, :, None], 0.0
        )

    allies, enemies = unit[:, None, :n], unit[:, None, n:]
    mates = jnp.where(
        _before(n)[None, :, :, None], allies[:, :, : n - 1], allies[:, :, 1:]
    )
    mask = _split(scenario, seen)
    return relative(mask[0], mates), relative(mask[1], enemies)


def _split(
    scenario: Scenario, units: Bool[Array, "B N U"]
) -> tuple[Bool[Array, "B N N-1"], Bool[Array, "B N M"]]:
    """Slots of an observer: the other allies in order, then the enemies."""
    n = scenario.n_allies
    return jnp.where(_before(n)[None], units[:, :, : n - 1], units[:, :, 1:n]), units[
        :, :, n:
    ]


def _before(n: int) -> Bool[Array, "{n} {n}-1"]:
    """Whether slot e of ally i is the ally e itself; from the observer on it is the next one."""
    return jnp.arange(n - 1)[None] < jnp.arange(n)[:, None]


def _last_targeted(scenario: Scenario, state: Visible) -> Float[Array, "B U 1"]:
    n_actions = [N_OWN_ACTIONS + scenario.n_enemies] * scenario.n_allies
    n_actions += [N_OWN_ACTIONS + scenario.n_allies] * scenario.n_enemies
    return (state.attack / (jnp.asarray(n_actions)[None] - 1))[..., None]


def _available(
    alive: Bool[Array, "B N"], there: Bool[Array, "B N"], in_reach: Bool[Array, "B N M"]
) -> Bool[Array, "B N A"]:
    """The absent may do nothing; the dead may stop; the living may also walk, and shoot at whom they reach."""
    walk = jnp.repeat(alive[..., None], STOP, axis=-1)
    return jnp.concatenate([walk, there[..., None], in_reach], axis=-1)
