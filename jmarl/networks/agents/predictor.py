"""Agent network that also predicts the outputs of other action groups, for the CGI loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.nn.initializers import orthogonal
from jmarl.types import Carry, EntityObs, Spec


class Prediction(NamedTuple):
    """Outputs of an agent network, and its predictions for the action groups."""

    out: Float[Array, "*batch N A"]
    """Logits or action values of each agent."""
    predicted: Float[Array, "*batch N K A"]
    """Logits or action values that each agent predicts for each action group."""


class PredictingAgent(nn.Module):
    """Agent network with a predictor: ``Dense(relu(Dense(features)))``, shared by all agents.

    The outputs are those of ``net``. In place of the features it returns a ``Prediction``.
    """

    net: Any
    """Agent network of ``networks/agents``."""
    spec: Spec
    width: int
    """Hidden units of the predictor."""
    conditioned: bool
    """True: one prediction for each action group. False: one prediction for all of them."""
    grad_to_trunk: bool
    """True: gradients of the prediction flow into ``net``."""

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of ``net``."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"], Prediction]:
        """Return the next memory, the outputs, and the outputs with the predictions."""
        carry, out, x = self.net(carry, obs, first)
        if not self.grad_to_trunk:
            x = jax.lax.stop_gradient(x)
        groups = len(self.spec.group_actions)
        shape = (groups if self.conditioned else 1, self.spec.n_actions)
        init = orthogonal()
        x = nn.relu(nn.Dense(self.width, kernel_init=init, name="predictor")(x))
        size = shape[0] * shape[1]
        x = nn.Dense(size, kernel_init=orthogonal(0.01), name="prediction")(x)
        x = x.reshape(*x.shape[:-1], *shape)
        predicted = jnp.broadcast_to(x, (*x.shape[:-2], groups, shape[1]))
        return carry, out, Prediction(out, predicted)
