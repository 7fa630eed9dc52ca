"""Policies with separate parameters for each agent, stacked over the agents.

Agent i's policy is a module for a team of one. It reads ``obs.agent(i)`` and uses entry i of the
stacked parameters. All agents are computed at once by ``vmap``, so the size of the program does not
depend on their number.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.actor_critic import Policy
from jmarl.networks.heads import ActionDist
from jmarl.types import Carry, EntityObs, Params


class SeparatePolicies(nn.Module):
    """N copies of ``policy``, a policy of a team of one, with separate parameters."""

    policy: Policy
    n_agents: int

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of every agent, with leaves ``[B, N, 1, ...]``."""

        def repeat(x: Array) -> Array:
            return jnp.repeat(x[:, None], self.n_agents, axis=1)

        return jax.tree.map(repeat, self.policy.initial(batch))

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, ActionDist, Float[Array, "T B N H"]]:
        """Return the next memory, action distributions, and features, for ``obs[T, B, N]``."""
        teams = obs.split_agents()
        in_axes: Any = 1, jax.tree.map(lambda _: 0, teams).replace(state=None)
        out_axes: Any = 1, 2, 2

        def act(policy: Policy, carry: Carry, obs: EntityObs) -> Any:
            return policy(carry, obs, first)

        act_all = nn.vmap(
            act,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=in_axes,
            out_axes=out_axes,
            axis_size=self.n_agents,
        )
        carry, *out = act_all(self.policy, carry, teams)
        dist, features = jax.tree.map(lambda x: x.squeeze(3), out)
        return carry, dist, features


def policy_params(params: Params) -> Params:
    """Return parameters for ``policy`` from those of the module, stacked or of one agent."""
    return {"params": params["params"]["policy"]}
