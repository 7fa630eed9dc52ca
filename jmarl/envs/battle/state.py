"""The state of a batch of skirmishes, and the batch-last view of it that the physics works on."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.rules import Scenario


ABSENT = -1


class Spawn(struct.PyTreeNode):
    """How an episode begins; also one entry of the pool of pre-drawn starts."""

    position: Float[Array, "*batch U 2"]
    kind: Int[Array, "*batch U"]
    """Type id, an index into the columns of ``rules.UNITS``; ``ABSENT``: this team has no such unit."""


class Pool(struct.PyTreeNode):
    """Starts drawn ahead, P for each environment, used in turn."""

    spawn: Spawn
    """Each leaf [B, P, ...]."""
    used: Int[Array, "B"]


class Visible(struct.PyTreeNode):
    """What observations are made of. Units are U = N allies, then M enemies; a unit is alive while it has health."""

    position: Float[Array, "B U 2"]
    """On the map, 0 to 32."""
    health: Float[Array, "B U"]
    cooldown: Float[Array, "B U"]
    """Seconds until the weapon is ready; counts on below zero."""
    kind: Int[Array, "B U"]
    heading: Float[Array, "B U 2"]
    """Direction of the last action: a unit vector, or zero if it was no move."""
    attack: Int[Array, "B U"]
    """The last action if it was an attack, else 0."""
    steps: Int[Array, "B"]
    """Steps taken in this episode."""

    @property
    def alive(self) -> Bool[Array, "B U"]:
        """Which units have health left."""
        return self.health > 0


class State(Visible):
    """A batch of skirmishes."""

    goal: Float[Array, "B M 2"]
    """Where an enemy walks while it sees nobody: its own start, rotated by half a turn."""
    quarry: Int[Array, "B M"]
    """The enemy's last target, counted from the last ally backwards; -1: none."""
    ended: Bool[Array, "B"]
    """The last step ended the episode: the next one begins another."""
    pool: Pool | None


class Bodies(NamedTuple):
    """Units with the batch as the last axis.

    On a CPU the inner loop then runs over worlds, at full vector width and without shuffles,
    whatever the number of units is.
    """

    x: Float[Array, "U B"]
    y: Float[Array, "U B"]
    health: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


def bodies(state: State) -> Bodies:
    """The batch-last view of a state."""
    return Bodies(
        state.position[..., 0].T,
        state.position[..., 1].T,
        state.health.T,
        state.cooldown.T,
    )


def present(scenario: Scenario, kind: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Which units the episode has; all, dead or alive, where teams have one size."""
    return kind != ABSENT if scenario.choices else jnp.ones_like(kind, bool)


def trait(column: np.ndarray, kind: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """One column of the unit table, looked up for each unit; a type's, which is void, for one that is absent."""
    return jnp.asarray(column)[kind]


def distance(
    dx: Float[Array, "*shape"], dy: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Euclidean length, rounded as SMAX's.

    The maxima change nothing but keep the compiler from fusing product and sum, which would
    round once less: a target at the very edge of a range would be in it here and not there.
    """
    return jnp.sqrt(jnp.maximum(dx * dx, 0.0) + jnp.maximum(dy * dy, 0.0))
