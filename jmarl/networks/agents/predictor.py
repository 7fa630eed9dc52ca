"""Predictor of the outputs of other action groups, for the CGI loss, and what it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.nn.initializers import orthogonal
from jmarl.types import Carry, EntityObs, Spec


class Exposed(NamedTuple):
    """Outputs of an agent network, and what they were computed from."""

    out: Float[Array, "*batch N A"]
    """Logits or action values of each agent."""
    features: Float[Array, "*batch N H"]
    """Features after the memory."""


class Prediction(NamedTuple):
    """Outputs of an agent network, and predictions for the action groups."""

    out: Float[Array, "*batch N A"]
    """Logits or action values of each agent."""
    predicted: Float[Array, "*batch N K A"]
    """Logits or action values that each agent predicts for each action group."""


class ExposedAgent(nn.Module):
    """Agent network that returns an ``Exposed`` in place of its features."""

    net: Any
    """Agent network of ``networks/agents``."""

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of ``net``."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"], Exposed]:
        """Return the next memory, the outputs, and the outputs with the features."""
        carry, out, features = self.net(carry, obs, first)
        return carry, out, Exposed(out, features)


class Predictor(nn.Module):
    """Predictor ``Dense(relu(Dense(features)))`` of the outputs of all action groups.

    All agents share it. Acting does not need it.
    """

    spec: Spec
    width: int
    """Hidden units."""
    conditioned: bool
    """True: one prediction for each action group. False: one prediction for all of them."""

    @nn.compact
    def __call__(
        self, features: Float[Array, "*batch N H"]
    ) -> Float[Array, "*batch N K A"]:
        """Return the logits or action values that each agent predicts for each group."""
        groups, n_actions = len(self.spec.group_actions), self.spec.n_actions
        n_predictions = groups if self.conditioned else 1
        size = n_predictions * n_actions
        init = orthogonal()
        x = nn.relu(nn.Dense(self.width, kernel_init=init, name="hidden")(features))
        x = nn.Dense(size, kernel_init=orthogonal(0.01), name="out")(x)
        x = x.reshape(*x.shape[:-1], n_predictions, n_actions)
        return jnp.broadcast_to(x, (*x.shape[:-2], groups, n_actions))
