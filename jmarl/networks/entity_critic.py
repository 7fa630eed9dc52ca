"""Critics for any agent network, and a central critic that reads entities.

``EntityCritic`` reads the entities of the state with the hypernetworks of ``HPN``.

    x = relu(global W + sum_j x_j W_in(x_j)),   h' = memory(h, x),   V = h' w + b

The sum is over the rows of all groups of the central state, including the agents' own. It is
invariant to the order of entities and ignores absent ones. No agent's one-hot is read, so one set
of parameters serves teams of any size.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.actor_critic import Critic, FlatInput, NetworkConfig
from jmarl.networks.agents import AgentConfig
from jmarl.networks.agents.hpn import GroupHypernet, HPNConfig, encode_entities
from jmarl.networks.agents.saqa import SAQAConfig
from jmarl.networks.agents.updet import UPDeTConfig
from jmarl.networks.entities import EntityRows, entity_rows
from jmarl.networks.heads import value_head
from jmarl.networks.memory import MemoryKind, make_memory
from jmarl.types import Carry, EntityObs, Spec


CriticInput = Literal[FlatInput, "entities"]
"""Input of a critic: an input of ``Critic``, or the entities of the central state."""


def make_critic(
    spec: Spec, config: AgentConfig, reads: CriticInput
) -> Critic | EntityCritic:
    """Build a critic of about the size of an agent network.

    A critic of the same kind as the agent network has the same sizes. Any other critic has one
    layer before its memory, and the memory and width of the agent network.

    Args:
        spec: Description of the environment.
        config: Sizes of the agent network.
        reads: Input of the critic.

    Returns:
        Module ``(carry, obs, first) -> (carry, value[T, B, N])``, with ``initial(B) -> carry``.
    """
    if reads == "entities":
        return EntityCritic(spec, _entity_sizes(config))
    return Critic(spec, _flat_sizes(config), reads)


def _memory_and_width(config: AgentConfig) -> tuple[MemoryKind, int]:
    match config:
        case UPDeTConfig():
            return "gru", config.embed_dim
        case SAQAConfig():
            return config.memory, config.embed_dim
    return config.memory, config.memory_width


def _entity_sizes(config: AgentConfig) -> HPNConfig:
    if isinstance(config, HPNConfig):
        return config
    memory, width = _memory_and_width(config)
    return HPNConfig("hpn", memory, width, width, n_head=1, pool="sum", agent_id=False)


def _flat_sizes(config: AgentConfig) -> NetworkConfig:
    if isinstance(config, NetworkConfig):
        return config
    memory, width = _memory_and_width(config)
    return NetworkConfig((width,), memory, width, (), "relu", True, agent_id=False)


class EntityCritic(nn.Module):
    """Value of the team, equal for all its agents, computed and remembered once per team.

    The parameters depend on the widths of the state's rows and of its global features. If the
    state has no rows, the agents' own features are used. The global features then consist of all
    observations, so the parameters fit one team size only.
    """

    spec: Spec
    config: HPNConfig

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of the team, with leaves ``[B, 1, ...]``."""
        cfg = self.config
        return make_memory(cfg.memory, cfg.memory_width).initial(batch, 1)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N"]]:
        """Return the next memory and values in normalized units.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
        """
        cfg = self.config
        pooled = [self._pool_group(g) for g in entity_rows(obs, self.spec)]
        x = encode_entities(self, cfg, (obs.state.features,), pooled)  # [T, B, H]
        memory = make_memory(cfg.memory, cfg.memory_width)
        carry, x = memory(carry, x[..., None, :], first[..., None])  # [T, B, 1, H]
        return carry, jnp.broadcast_to(value_head(x), obs.alive.shape)

    def _pool_group(self, group: EntityRows) -> Float[Array, "T B n H"]:
        width = group.rows.shape[-1]
        name = f"hyper_{group.name}"
        net = GroupHypernet(self.config, width, kinds=0, out_scale=0.0, name=name)
        return net.pool_entities(group.rows, net(group.rows), group.mask)
