"""State of a batch of battles under the rules of SMAC."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat import combatants
from jmarl.envs.battle.combat.tick import Bodies
from jmarl.envs.battle.smac.smac_actions import STOP
from jmarl.envs.battle.smac.smac_facts import Cast, Facts


class Start(struct.PyTreeNode):
    """Start of an episode. Fields that are the same in all episodes are None."""

    position: Float[Array, "*batch U 2"]
    destination: Float[Array, "*batch M 2"]
    """Place to which an enemy with the order to attack-move walks."""
    choice: Int[Array, "*batch"] | None = None
    """Index of the drawn battle."""
    cast: Cast | None = None
    """Units and their orders."""
    arrives: Int[Array, "*batch U"] | None = None
    """Step at which a unit appears."""
    leaves: Int[Array, "*batch U"] | None = None
    """Step at which a unit is withdrawn."""
    luck: Bool[Array, "*batch N M"] | None = None
    """Whether an ally can see an enemy that another ally has sighted first."""


class ObservableState(struct.PyTreeNode):
    """Part of the state that determines the observations; None for what no unit has."""

    position: Float[Array, "B U 2"]
    """Position on the map, 0 to 32."""
    health: Float[Array, "B U"]
    cooldown: Float[Array, "B U"]
    """Seconds until the weapon or the ability is ready."""
    shield: Float[Array, "B U"] | None
    energy: Float[Array, "B U"] | None
    ward: Float[Array, "B U"] | None
    """Seconds for which a unit has temporary armor."""
    row: Int[Array, "B U"] | None
    """Row of the table of each unit; None if the units are always the same."""
    choice: Int[Array, "B"] | None
    """Index of the drawn battle; None if there is only one."""
    arrives: Int[Array, "B U"] | None
    """Step at which a unit appears."""
    facing: Int[Array, "B N"] | None
    """Direction of each ally's view, in twelfths of a turn from east."""
    extra_sight: Float[Array, "B N"] | None
    """Distance that ``spot`` adds to an ally's sight."""
    unlucky: Bool[Array, "B N M"] | None
    """Enemies that an ally can never see, because another ally sighted them first."""
    last_action: Int[Array, "B N"]
    """Last action of each ally; stop at the start of an episode."""
    steps: Int[Array, "B"]
    """Steps taken in this episode."""

    @property
    def alive(self) -> Bool[Array, "B U"]:
        """Mask of the units with positive health."""
        return self.health > 0


class State(ObservableState):
    """State of a batch of battles; None for what no unit of the scenario has."""

    calm: Float[Array, "B U"] | None
    healing: Bool[Array, "B U"] | None
    pending: Bool[Array, "B U"] | None
    pace: Float[Array, "B U"] | None
    ward_armor: Float[Array, "B U"] | None
    order: Int[Array, "B M"] | None
    """Order of each enemy; None if the units are always the same."""
    leaves: Int[Array, "B U"] | None
    """Step at which a unit is withdrawn."""
    spotted: Float[Array, "B N"] | None
    """Seconds for which an ally sees farther."""
    luck: Bool[Array, "B N M"] | None
    """Whether an ally can see an enemy that another ally has sighted first."""
    sighted: Bool[Array, "B M"] | None
    """Enemies that an ally has sighted."""
    destination: Float[Array, "B M 2"]
    """Place to which an enemy walks without a target."""
    healed: Float[Array, "B"] | None
    """Health that the allies' healers have restored in this episode."""
    last_target: Int[Array, "B U"]
    """Index of the unit at which the last order was aimed; -1 if there was none."""
    ended: Bool[Array, "B"]
    """Flag: the last step ended the episode, so the next step resets."""
    pool: Any
    """Pool of starts (``env.Pool``), or None."""


def rows_of(f: Facts, state: ObservableState) -> combatants.Rows:
    """Return the row of the table of each unit: ``[U]``, or ``[B, U]`` if units are drawn."""
    return f.casts[0].row if state.row is None else state.row


def orders_of(f: Facts, state: State) -> combatants.Rows:
    """Return the order of each enemy: ``[M]``, or ``[B, M]`` if units are drawn."""
    return f.casts[0].order if state.order is None else state.order


def trait(f: Facts, rows: combatants.Rows, name: str) -> Any:
    """Return a field of the types at given rows of the table."""
    return combatants.take(combatants.column(f.table, name), rows)


def present(f: Facts, state: ObservableState) -> Bool[Array, "B U"]:
    """Return the mask of the units that the episode has now, dead or alive."""
    exists = rows_of(f, state) != f.nobody
    here = jnp.broadcast_to(exists, state.health.shape)
    if state.arrives is None:
        return here
    has_arrived = state.arrives <= state.steps[:, None]
    return here & has_arrived


def first_state(f: Facts, start: Start) -> State:
    """Return the first state of an episode with a given start."""
    batch, units, _ = start.position.shape

    def zeros(used: bool = True, count: int = units, dtype: Any = float) -> Any:
        return jnp.zeros((batch, count), dtype) if used else None

    flags = partial(zeros, dtype=bool)
    strength = _first_strength(f, start)
    has_healers = f.slots.heals.size > 0
    cast = start.cast
    return State(
        position=start.position,
        health=strength["health"],
        cooldown=zeros(),
        shield=strength["shield"],
        energy=strength["energy"],
        ward=zeros(f.wards),
        row=None if cast is None else cast.row,
        choice=start.choice,
        arrives=start.arrives,
        facing=zeros(f.config.cone, f.n, jnp.int32),
        extra_sight=zeros(f.spots, f.n),
        unlucky=None if start.luck is None else jnp.zeros_like(start.luck),
        last_action=jnp.full((batch, f.n), STOP, jnp.int32),
        steps=jnp.zeros(batch, jnp.int32),
        calm=zeros(f.slots.shields),
        healing=flags(has_healers),
        pending=flags(f.slots.bursts.size > 0),
        pace=zeros(_accelerates(f)),
        ward_armor=zeros(f.wards),
        order=None if cast is None else cast.order,
        leaves=start.leaves,
        spotted=zeros(f.spots, f.n),
        luck=start.luck,
        sighted=flags(start.luck is not None, f.m),
        destination=start.destination,
        healed=jnp.zeros(batch) if f.heals else None,
        last_target=jnp.full((batch, units), -1, jnp.int32),
        ended=jnp.zeros(batch, bool),
        pool=None,
    )


def _first_strength(f: Facts, start: Start) -> dict[str, Any]:
    """Return health, shield and energy at the start; None for what no unit has."""
    shape = start.position.shape[:2]
    cast = f.casts[0] if start.cast is None else start.cast

    def full(name: str, used: bool = True) -> Any:
        if not used:
            return None
        values = jnp.asarray(trait(f, cast.row, name))
        return jnp.broadcast_to(values, shape)

    health = full("health")
    if start.arrives is not None:
        is_here = start.arrives <= 0
        health = jnp.where(is_here, health, 0.0)
    has_healers = f.slots.heals.size > 0
    return {
        "health": health,
        "shield": full("shield", f.slots.shields),
        "energy": full("energy", has_healers),
    }


def _accelerates(f: Facts) -> bool:
    return f.may(slice(None), lambda row: np.isfinite(row.acceleration))


def to_bodies(state: State) -> Bodies:
    """Return the batch-last view of a state."""
    x = state.position[..., 0]
    y = state.position[..., 1]
    return Bodies(x=x.T, y=y.T, **_transposed(state))


def with_bodies(state: State, bodies: Bodies) -> State:
    """Return a state with other bodies."""
    position = jnp.stack([bodies.x.T, bodies.y.T], axis=-1)
    return state.replace(position=position, **_transposed(bodies))


def _transposed(source: State | Bodies) -> dict[str, Any]:
    """Return the fields that states and bodies share, all but the position, transposed."""
    _, _, *names = Bodies._fields
    values = {name: getattr(source, name) for name in names}
    return {name: None if x is None else x.T for name, x in values.items()}
