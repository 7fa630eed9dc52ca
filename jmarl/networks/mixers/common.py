"""Parts that mixers share: values of the actions taken, the mask of agents, and the flat state."""

from __future__ import annotations

from typing import Protocol

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.networks.flatten import state_parts
from jmarl.types import EntityObs


AgentQ = Float[Array, "*batch N A"]
"""Q-values of all actions of every agent; the leading axes are ``T, B``."""
Actions = Int[Array, "*batch N"]
"""Indices of the actions taken."""
TeamQ = Float[Array, "*batch"]
"""Q-value of the team, ``q_tot``."""


class Mixer(Protocol):
    """Map from the agents' Q-values of all actions to the team's Q-value of the actions taken.

    The values of all actions allow mixers that compare the action taken with the greedy one.
    """

    def __call__(self, q: AgentQ, action: Actions, obs: EntityObs) -> TeamQ:
        """Return ``q_tot``, which does not decrease in any agent's value of its action.

        Args:
            q: Q-values ``[..., N, A]``.
            action: Actions taken ``[..., N]``.
            obs: Observations ``[..., N]``, with masks and the central state.
        """
        ...


def q_of_actions(q: AgentQ, action: Actions) -> Float[Array, "*batch N"]:
    """Return each agent's Q-value of its action."""
    index = action[..., None]
    return jnp.take_along_axis(q, index, axis=-1, mode="clip")[..., 0]


def agent_mask(obs: EntityObs, mask_dead: bool) -> Bool[Array, "*batch N"]:
    """Return the mask of the mixed agents: present ones, or alive ones with ``mask_dead``."""
    return obs.alive if mask_dead else obs.present


def flat_state(obs: EntityObs) -> Float[Array, "*batch S"]:
    """Return the central state as one vector: global features | rows of each group."""
    return jnp.concatenate(state_parts(obs.state), axis=-1)


def dense(width: int, name: str) -> nn.Dense:
    """Build a dense layer with a kernel drawn uniformly within 1/sqrt(fan-in), PyTorch's default.

    The papers' settings were tuned for it. Flax's default is sqrt 3 times as wide. Two such layers
    give a weight of the mixing network, and a product of two such weights gives an agent's share in
    ``q_tot``. With Flax's default the share would start nine times as large.
    """
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(width, kernel_init=init, name=name)


class Hypernet(nn.Module):
    """Network from the flat state to weights: a hidden layer with a relu, then a linear layer."""

    hidden: int
    width: int

    @nn.compact
    def __call__(self, state: Float[Array, "*batch S"]) -> Float[Array, "*batch W"]:
        x = nn.relu(dense(self.hidden, "hidden")(state))
        return dense(self.width, "out")(x)
