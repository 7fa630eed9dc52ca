"""State of a batch of battles, and its batch-last view for the physics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.scenario import Scenario


ABSENT = -1
"""Type id of a unit slot that the team of this episode does not fill."""


class Spawn(struct.PyTreeNode):
    """Start of an episode: positions and types of all units."""

    position: Float[Array, "*batch U 2"]
    kind: Int[Array, "*batch U"]
    """Type id, an index into ``Rules.units``, or ``ABSENT``."""


class ObservableState(struct.PyTreeNode):
    """Part of the state that determines the observations.

    The U units are N allies followed by M enemies. A unit is alive while its health is positive.
    """

    position: Float[Array, "B U 2"]
    """Position on the map, 0 to 32."""
    health: Float[Array, "B U"]
    cooldown: Float[Array, "B U"]
    """Seconds until the weapon is ready; negative values count the time since then."""
    kind: Int[Array, "B U"]
    """Type id, as in ``Spawn``."""
    heading: Float[Array, "B U 2"]
    """Direction of the last action: a unit vector, or zero if it was not a move."""
    attack: Int[Array, "B U"]
    """Last action if it was an attack, else 0."""
    steps: Int[Array, "B"]
    """Steps taken in this episode."""

    @property
    def alive(self) -> Bool[Array, "B U"]:
        """Mask of the units with positive health."""
        return self.health > 0


class State(ObservableState):
    """State of a batch of battles."""

    destination: Float[Array, "B M 2"]
    """Place to which an enemy walks if it sees no ally: its start rotated by 180 degrees."""
    last_target: Int[Array, "B M"]
    """Last target of an enemy, counted from the last ally backwards; -1 if there is none."""
    ended: Bool[Array, "B"]
    """Flag: the last step ended the episode, so the next step resets."""
    pool: Any
    """Pool of starts (``env.Pool``), or None."""


class Bodies(NamedTuple):
    """Physical state of units with the batch as the last axis.

    On a CPU the inner loop then runs over environments, at full vector width and without
    shuffles, for any number of units.
    """

    x: Float[Array, "U B"]
    y: Float[Array, "U B"]
    health: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


def to_bodies(state: State) -> Bodies:
    """Return the batch-last view of a state."""
    return Bodies(
        x=state.position[..., 0].T,
        y=state.position[..., 1].T,
        health=state.health.T,
        cooldown=state.cooldown.T,
    )


def present(scenario: Scenario, kind: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Return the mask of the units that the episode has, dead or alive."""
    return kind != ABSENT if scenario.choices else jnp.ones_like(kind, bool)


def trait(
    rules: Rules, name: str, kind: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return a field of each unit's type; it is arbitrary for absent units."""
    return jnp.asarray(rules.column(name))[kind]


def distance(
    dx: Float[Array, "*shape"], dy: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the Euclidean length with the rounding of SMAX.

    The maxima do not change the value. They keep the compiler from fusing product and sum,
    which would round once less and move targets at the edge of a range into it.
    """
    return jnp.sqrt(jnp.maximum(dx * dx, 0.0) + jnp.maximum(dy * dy, 0.0))
