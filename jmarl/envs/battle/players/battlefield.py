"""Facts of a battle that scripted players need, and their view of the central state.

Players read the central state. SMAC's own heuristic sees all units, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.config.errors import ConfigError
from jmarl.envs.battle.combat.combatants import column, take
from jmarl.envs.battle.combat.tick import Bodies
from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.scenarios.terrain import get_terrain
from jmarl.envs.battle.situation import BattleFacts, Situation, has_detours, look
from jmarl.envs.battle.smac import smac_actions, smac_observe
from jmarl.envs.battle.smac.smac_facts import MAP_SIZE, Facts
from jmarl.envs.battle.smac.smac_opponents import battle_facts
from jmarl.envs.battle.smax import smax_observe
from jmarl.types import BY_CLASS, EntityObs, Spec


class Columns(NamedTuple):
    """Columns of a unit's row of the central state."""

    health: int
    """Fraction of the full health."""
    shield: int | None
    """Fraction of the full shield."""
    cooldown: int
    """Fraction of ``Battlefield.cooldown``."""
    kind: slice
    """One-hot type."""
    x: int
    y: int


class Battlefield(NamedTuple):
    """Facts of a battle that do not change."""

    facts: BattleFacts
    shield: np.ndarray
    """Full shield of each row of the table."""
    cooldown: np.ndarray
    """Seconds by which the central state divides the cooldown, for each row."""
    enemy_rows: int
    """Row of the first type of the enemies."""
    columns: Columns
    map_size: float
    headings: np.ndarray
    """Direction of each own action, ``[A, 2]``; zero if it is not a move."""
    stop: int
    """Index of the action of a living unit that does nothing."""


def battlefield(spec: Spec) -> Battlefield | None:
    """Return the facts of the battle with a given specification.

    The result is None for other environments, and if the targets of actions depend on the class
    of the unit (``env.layout=clash`` with healers).

    Raises:
        ConfigError: battles with different ways around walls are joined. An observation does not
            show which of them is played.
    """
    codec = spec.obs_codec
    if max(spec.action_target) < 0 or BY_CLASS in spec.action_target:
        return None
    if isinstance(codec, smac_observe.ObsCodec):
        return _smac(codec.facts)
    if isinstance(codec, smax_observe.ObsCodec):
        return _smax(codec.scenario.rules)
    return None


def view(field: Battlefield, obs: EntityObs) -> Situation:
    """Return the situation of the allies, computed from the central state."""
    rows = jnp.concatenate(obs.state.rows, axis=1)  # [B, U, F]
    features = jnp.moveaxis(rows, -1, 0).swapaxes(1, 2)  # [F, U, B]
    n = obs.alive.shape[-1]
    kind = jnp.argmax(features[field.columns.kind], axis=0)
    is_enemy = (np.arange(len(kind)) >= n)[:, None]
    kind = kind + is_enemy * field.enemy_rows
    bodies = _bodies(field, features, kind)
    here = bodies.x[:n], bodies.y[:n]
    nothing = jnp.full(here[0].shape, -1)
    return look(field.facts, kind, bodies, slice(n), nothing, here)


def _bodies(field: Battlefield, features: Float[Array, "F U B"], kind: Any) -> Bodies:
    """Return the state of all units. Rows of dead units are zero."""
    columns = field.columns
    shield = None
    if columns.shield is not None:
        shield = features[columns.shield] * take(field.shield, kind)
    return Bodies(
        x=features[columns.x] * field.map_size,
        y=features[columns.y] * field.map_size,
        health=features[columns.health] * take(field.facts.health, kind),
        cooldown=features[columns.cooldown] * take(field.cooldown, kind),
        shield=shield,
    )


def _smac(f: Facts) -> Battlefield:
    """Return the facts of a battle. If several are joined, the first has the walls."""
    if len(f.terrains) > 1 and has_detours(f.terrains):
        names = ", ".join(terrain.name for terrain in f.terrains)
        rule = f"scripted players need one terrain, not {names}"
        raise ConfigError(f"{rule}; play the battles one by one")
    types, first = len(f.unit_types), 3 + f.wards
    healer = column(f.table, "heal") > 0
    loops = column(f.table, "cooldown_scale") / smac_observe.LOOPS_PER_SECOND
    headings = smac_actions.column(f, "heading")[: smac_actions.n_own_actions(f)]
    return Battlefield(
        facts=battle_facts(f.table, f.terrains[:1]),
        shield=column(f.table, "shield"),
        cooldown=np.where(healer, np.float32(0), loops),  # the column holds the energy
        enemy_rows=types,
        columns=Columns(0, 1, 2, slice(first, first + types), -2, -1),
        map_size=MAP_SIZE,
        headings=headings.astype(np.float32),
        stop=smac_actions.STOP,
    )


def _smax(rules: Rules) -> Battlefield:
    types, reach = rules.n_unit_types, rules.column("attack_range")
    nothing = np.zeros(types, np.float32)
    pairs = np.ones((types, types), bool)
    facts = BattleFacts(
        terrains=(get_terrain("open"),),
        health=rules.column("health"),
        weapon_range=reach,
        radius=nothing,  # ranges are between centers
        scan=reach,
        sight=rules.column("sight_range"),
        speed=rules.column("speed"),
        healer=nothing > 0,
        walks=nothing == 0,
        damage=np.repeat(rules.column("damage")[:, None], types, axis=1),
        hits=pairs,
        heals=~pairs,
    )
    return Battlefield(
        facts=facts,
        shield=nothing,
        cooldown=rules.column("cooldown"),
        enemy_rows=0,
        columns=Columns(0, None, 3, slice(4, 4 + types), 1, 2),
        map_size=rules.map_size,
        headings=rules.headings(rules.n_own_actions).T,
        stop=rules.own_action("stop"),
    )
