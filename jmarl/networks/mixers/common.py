"""What mixers share: the values of the actions taken, whose count, and the state as entities or as one vector."""

from __future__ import annotations

from typing import Protocol

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.networks.flatten import state_parts
from jmarl.types import EntityObs


class Mixer(Protocol):
    """From the agents' values of all their actions to the team's value of the actions taken.

    ``*batch`` is ``T B``. With all the actions' values in hand, a mixer that compares the action taken with
    the best one fits as well as one that sums.
    """

    def __call__(
        self,
        q: Float[Array, "*batch N A"],
        action: Int[Array, "*batch N"],
        obs: EntityObs,
    ) -> Float[Array, "*batch"]:
        """``q_tot``: it grows, or at least does not shrink, with how much each agent values what it does."""
        ...


def chosen(
    q: Float[Array, "*batch N A"], action: Int[Array, "*batch N"]
) -> Float[Array, "*batch N"]:
    """Each agent's value of its action."""
    return jnp.take_along_axis(q, action[..., None], axis=-1, mode="clip")[..., 0]


def counted(obs: EntityObs, mask_dead: bool) -> Bool[Array, "*batch N"]:
    """The agents whose values count: all that are present, or with ``mask_dead`` the living ones alone."""
    return obs.alive if mask_dead else obs.present


def flat_state(obs: EntityObs) -> Float[Array, "*batch S"]:
    """The central state as one vector: global features | rows of each group, masked rows zero."""
    return jnp.concatenate(state_parts(obs.state), axis=-1)


def dense(width: int, name: str) -> nn.Dense:
    """A layer whose kernel starts uniform within 1/sqrt(fan-in): PyTorch's default, for which the papers' settings are.

    Flax's default is sqrt 3 times as wide. A weight of the mixing network is made by two such layers, and an agent's
    share in ``q_tot`` by a product of two such weights: it would start nine times as large.
    """
    return nn.Dense(
        width,
        kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        name=name,
    )


class Hypernet(nn.Module):
    """From the flat state to weights: a hidden layer with a relu, then a linear one."""

    hidden: int
    width: int

    @nn.compact
    def __call__(self, state: Float[Array, "*batch S"]) -> Float[Array, "*batch W"]:
        """``[..., S]`` to ``[..., width]``."""
        return dense(self.width, "out")(nn.relu(dense(self.hidden, "hidden")(state)))
