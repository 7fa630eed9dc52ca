"""A central critic that reads the state as entities, as ``HPN`` reads an observation.

    x = relu(global W + sum_j x_j W_in(x_j)),   h' = memory(h, x),   V = h' w + b

The sum is over the rows of all groups of the central state, the agents' own among them. It is blind to their order and
to who is absent, and has no agent's one-hot, so that one set of parameters serves teams of any size.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.agents.hpn import HPNConfig, HyperNet, sensed
from jmarl.networks.entities import entity_rows
from jmarl.networks.memory import make_memory
from jmarl.nn.initializers import orthogonal
from jmarl.types import Carry, EntityObs, Spec


class EntityCritic(nn.Module):
    """The team's value, the same for every agent; it runs, and remembers, once for a team.

    The parameters depend on the widths of the state's rows and of its global features. A world whose state has no rows
    lends the agents' own; its global features are then all observations, which do bind them to one team size.
    """

    spec: Spec
    config: HPNConfig

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Memory of the team."""
        return make_memory(self.config.memory, self.config.memory_width).initial(
            batch, 1
        )

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to values in normalized units."""
        cfg, pooled = self.config, []
        for group in entity_rows(obs, self.spec):
            net = HyperNet(
                cfg,
                group.rows.shape[-1],
                kinds=0,
                out_scale=0.0,
                name=f"hyper_{group.name}",
            )
            pooled.append(net.pooled(group.rows, net(group.rows), group.mask))
        x = sensed(self, cfg, (obs.state.features,), pooled)[..., None, :]
        carry, x = make_memory(cfg.memory, cfg.memory_width)(carry, x, first[..., None])
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(x)[..., 0]
        return carry, jnp.broadcast_to(value, obs.alive.shape)
