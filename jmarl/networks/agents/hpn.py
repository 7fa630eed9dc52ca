"""HPN: a hypernetwork gives each entity its own weights (Hao et al. 2022, arXiv:2203.05285).

    x = relu(own W + sum_j x_j W_in(x_j)),   h' = memory(h, x)
    q_own = h' W_o,   q_j = h' w_out(x_j) + b_out(x_j)

Each group has one hypernetwork ``x_j -> u_j = relu(Dense(x_j)) -> [W_in | w_out | b_out]``. This is
the shared form (HPNS) of API-HPN, which all configurations of the authors' code use. The sum over
entities is invariant to their order. The value of an action follows the entity that it targets.

No entity's matrix is ever formed. W_in is linear in u_j, so ``sum_j x_j W_in(x_j)`` is one product
of the summed outer products ``sum_j x_j (x) u_j`` with the hypernetwork's last layer. ``q_j`` is an
inner product of u_j with a dense layer of h'. An entity costs about 2 F Hy multiplications instead
of F Hy H.

Differs from the paper and its code:
* Absent entities are masked. The code assumes that their rows are zero.
* If several kinds of action target a group, each kind has its own value. Any group can be a target;
  in the code only the last agent can heal.
* ``pool=mean`` keeps the scale of x across team sizes.
* The agent's one-hot is optional and off by default.
* Initial weights are scaled so that x and the values start in the range of a dense layer's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check_range
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import visible_rows
from jmarl.networks.flatten import agent_one_hot
from jmarl.networks.memory import Between, MemoryKind, make_memory
from jmarl.networks.sharing import SharingConfig
from jmarl.nn.linear import JointDense, product
from jmarl.types import Carry, EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class HPNConfig(SharingConfig):
    """Sizes of an ``HPN``; defaults are in ``configs/network/hpn.yaml``."""

    name: Literal["hpn"]
    memory: MemoryKind
    memory_width: int
    hyper_width: int
    n_head: int
    pool: Literal["sum", "mean"]
    agent_id: bool

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: If a value is out of range.
        """
        for key in ("memory_width", "hyper_width", "n_head"):
            check_range(f"network.{key}", getattr(self, key), 1)


class HPN(nn.Module):
    """Network from each agent's entities to one number per action; the interface of ``AgentNet``.

    The parameters do not depend on the number of agents or entities, unless ``agent_id`` is set.
    """

    output_layers: ClassVar = ("own_actions", "value")
    spec: Spec
    config: HPNConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of every agent, with leaves ``[B, N, ...]``."""
        cfg = self.config
        memory = make_memory(cfg.memory, cfg.memory_width)
        return memory.initial(batch, self.spec.n_agents)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        obs: EntityObs,
        first: Bool[Array, "T B"],
        between: Between | None = None,
    ) -> tuple[Carry, Float[Array, "T B N A"], Float[Array, "T B N H"]]:
        """Return the next memory, the outputs, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
            between: Function of the features, before the action values.
        """
        cfg = self.config
        rows = visible_rows(obs)
        nets = self._group_hypernets()
        hidden = [net(x) for net, x in zip(nets, rows, strict=True)]  # [T, B, N, E, Hy]
        own = [obs.own]
        if cfg.agent_id:
            own.append(agent_one_hot(obs, self.spec))
        pooled = [
            net.pool_entities(x, u, mask)
            for net, x, u, mask in zip(nets, rows, hidden, obs.mask, strict=True)
        ]
        x = encode_entities(self, cfg, own, pooled)  # [T, B, N, H]
        reset = first[..., None] | obs.joined
        memory = make_memory(cfg.memory, cfg.memory_width)
        carry, features = memory(carry, x, reset)
        x = between(features, features) if between else features
        pairs = zip(nets, hidden, strict=True)
        aimed = [net.action_values(u, x) for net, u in pairs if net.kinds]
        own_actions = own_values(self.spec, x, self.out_scale)
        return carry, flat_actions(self.spec, own_actions, aimed), features

    def _group_hypernets(self) -> list[GroupHypernet]:
        cfg = self.config
        groups = zip(self.spec.groups, slot_kinds(self.spec), strict=True)
        return [
            GroupHypernet(
                cfg, group.width, kinds, self.out_scale, name=f"hyper_{group.name}"
            )
            for group, kinds in groups
        ]


def encode_entities(
    net: nn.Module,
    cfg: HPNConfig,
    own: Sequence[Float[Array, "*batch F"]],
    pooled: Sequence[Float[Array, "*batch n H"]],
) -> Float[Array, "*batch H"]:
    """Return the input of the memory: ``relu(own W + sum_j x_j W_in(x_j))``.

    Call it in a compact method of ``net``, which owns W and the weights of the heads.

    Args:
        net: Module that owns the parameters.
        cfg: Sizes.
        own: Parts of the observer's features.
        pooled: Output of ``GroupHypernet.pool_entities`` for each group.
    """
    x = JointDense(cfg.memory_width, scale=1.0, name="own")(*own)
    if pooled:
        weights = None
        if cfg.n_head > 1:
            shape = (cfg.n_head, cfg.memory_width)
            weights = net.param("merge", nn.initializers.ones, shape)
        total = sum(pooled[1:], start=pooled[0])
        x += merge_heads(total, weights)
    return nn.relu(x)


class GroupHypernet(nn.Module):
    """Hypernetwork of one group: input of its entities and values of the actions aimed at them."""

    config: HPNConfig
    features: int
    kinds: int
    out_scale: float

    def setup(self) -> None:
        """Create the hidden layer and the slices of the last layer, for W_in and for the values.

        W_in is part of a dense layer of fan-in ``features``. Its kernel is part of the dense layer
        that reads ``x_j (x) u_j``. Their initial scales follow from these two layers.
        """
        cfg = self.config
        init = nn.initializers.lecun_normal()
        self.hidden = JointDense(cfg.hyper_width)
        out = cfg.n_head * cfg.memory_width
        self.kernel = self.param("kernel", init, (self.features * cfg.hyper_width, out))
        self.bias = self.param("bias", init, (self.features, out))
        if self.kinds:
            fan_in = cfg.memory_width * (cfg.hyper_width + 1)
            normal = nn.initializers.normal(self.out_scale / math.sqrt(fan_in))
            width = cfg.n_head * self.kinds * (cfg.hyper_width + 1)
            self.value = nn.Dense(width, kernel_init=normal)
            if cfg.n_head > 1:
                ones = nn.initializers.ones
                self.merge = self.param("merge", ones, (cfg.n_head, self.kinds))

    def __call__(self, rows: Float[Array, "*batch E F"]) -> Float[Array, "*batch E Hy"]:
        """Return the hidden layer u; W_in, w_out and b_out are linear functions of it."""
        return nn.relu(self.hidden(rows))

    def pool_entities(
        self,
        rows: Float[Array, "*batch E F"],
        hidden: Float[Array, "*batch E Hy"],
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch n H"]:
        """Return ``sum_j x_j W_in(x_j)`` for each head, or the mean over unmasked entities.

        Masked rows must be zero; they add nothing.
        """
        cfg = self.config
        outer = jnp.einsum("...ef,...ey->...fy", rows, hidden)
        outer = outer.reshape(*outer.shape[:-2], -1)  # [..., F * Hy]
        x = product(outer, self.kernel)
        x = x + product(rows.sum(-2), self.bias)
        if cfg.pool == "mean":
            x /= jnp.maximum(mask.sum(-1, keepdims=True), 1)
        return x.reshape(*x.shape[:-1], cfg.n_head, cfg.memory_width)

    def action_values(
        self, hidden: Float[Array, "*batch E Hy"], memory: Float[Array, "*batch H"]
    ) -> Float[Array, "*batch E K"]:
        """Return ``memory w_out(x_j) + b_out(x_j)`` for each kind of action."""
        n_head, width = self.config.n_head, self.config.hyper_width
        *batch, _ = memory.shape
        query = self.value(memory)
        query = query.reshape(*batch, n_head * self.kinds, width + 1)
        # the last column is the part that is constant in u_j
        constant = query[..., None, :, width]  # [..., 1, n * K]
        x = jnp.einsum("...ey,...ky->...ek", hidden, query[..., :width]) + constant
        x = x.reshape(*x.shape[:-1], n_head, self.kinds)
        return merge_heads(x, self.merge if n_head > 1 else None)


def merge_heads(
    x: Float[Array, "*batch n K"], weights: Float[Array, "n K"] | None
) -> Float[Array, "*batch K"]:
    """Return the heads' mean weighted by a softmax over heads, or the only head."""
    if weights is None:
        return x[..., 0, :]
    shares = jax.nn.softmax(weights, axis=0)
    return (x * shares).sum(-2)
