"""HPN: a hypernetwork gives every entity weights of its own (Hao et al. 2022, API-HPN, arXiv:2203.05285).

    x = relu(own W + sum_j x_j W_in(x_j)),   h' = memory(h, x),   q_own = h' W_o,   q_j = h' w_out(x_j) + b_out(x_j)

One hypernetwork for each group, ``x_j -> u_j = relu(Dense(x_j)) -> [W_in | w_out | b_out]``: the shared form (HPNS) of
the authors' code, which all its configurations use. A sum of entities is blind to their order, and an action's value
moves with the entity it is aimed at.

No entity's matrix is ever formed. W_in is linear in u_j, so ``sum_j x_j W_in(x_j)`` is one product of the summed outer
products ``sum_j x_j (x) u_j`` with the hypernetwork's last layer; and ``q_j`` is an inner product of u_j with a dense
layer of h'. An entity costs some 2 F Hy multiplications instead of F Hy H.

Differs from the paper and its code: absent entities are masked, not assumed to be zero rows; a group that several
kinds of action aim at gets a value for each kind, and any group can be aimed at (the code lets the last agent alone
heal); ``pool=mean`` keeps the scale of x over team sizes; the agent's one-hot is an option, off by default; initial
weights are scaled so that x and the values start in the range of a dense layer's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check_range
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import visible_rows
from jmarl.networks.flatten import one_hot
from jmarl.networks.memory import MemoryKind, make_memory
from jmarl.nn.linear import JointDense, product
from jmarl.types import Carry, EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class HPNConfig:
    """Sizes of an ``HPN``; defaults are in ``configs/network/hpn.yaml``."""

    name: Literal["hpn"]
    memory: MemoryKind
    memory_width: int
    hyper_width: int
    n_head: int
    pool: Literal["sum", "mean"]
    agent_id: bool

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        for key in ("memory_width", "hyper_width", "n_head"):
            check_range(f"network.{key}", getattr(self, key), 1)


class HPN(nn.Module):
    """One number for each action of each agent, from its entities; the interface of ``AgentNet``.

    Parameters are the same for any number of agents and entities, unless ``agent_id``.
    """

    spec: Spec
    config: HPNConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Memory of every agent."""
        return make_memory(self.config.memory, self.config.memory_width).initial(
            batch, self.spec.n_agents
        )

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to outputs."""
        cfg, spec, rows = self.config, self.spec, visible_rows(obs)
        nets = [
            HyperNet(
                cfg, group.width, kinds, self.out_scale, name=f"hyper_{group.name}"
            )
            for group, kinds in zip(spec.groups, slot_kinds(spec), strict=True)
        ]
        hidden = [net(x) for net, x in zip(nets, rows, strict=True)]
        own = (obs.own, one_hot(obs, spec)) if cfg.agent_id else (obs.own,)
        pooled = [
            net.pooled(*group)
            for net, *group in zip(nets, rows, hidden, obs.mask, strict=True)
        ]
        x = sensed(self, cfg, own, pooled)
        carry, x = make_memory(cfg.memory, cfg.memory_width)(
            carry, x, first[..., None] | obs.joined
        )
        aimed = [
            net.values(u, x) for net, u in zip(nets, hidden, strict=True) if net.kinds
        ]
        return carry, flat_actions(spec, own_values(spec, x, self.out_scale), aimed)


def sensed(
    net: nn.Module,
    cfg: HPNConfig,
    own: Sequence[Float[Array, "*batch F"]],
    pooled: Sequence[Float[Array, "*batch n H"]],
) -> Float[Array, "*batch H"]:
    """``relu(own W + sum_j x_j W_in(x_j))``, which the memory reads; W and the weights of the heads are ``net``'s."""
    x = JointDense(cfg.memory_width, scale=1.0, name="own")(*own)
    if pooled:
        shape = (cfg.n_head, cfg.memory_width)
        weights = (
            net.param("merge", nn.initializers.ones, shape) if cfg.n_head > 1 else None
        )
        x += merged(sum(pooled[1:], start=pooled[0]), weights)
    return nn.relu(x)


class HyperNet(nn.Module):
    """What the entities of one group add to the observer's features, and the values of the actions aimed at them."""

    config: HPNConfig
    features: int
    kinds: int
    out_scale: float

    def setup(self) -> None:
        """The hidden layer, and the slices of the last layer: its kernel and bias for W_in, and those for the values.

        W_in is part of a dense layer of fan-in ``features``, and its kernel of the one that reads
        ``x_j (x) u_j``: so they are initialized.
        """
        cfg, init = self.config, nn.initializers.lecun_normal()
        self.hidden = JointDense(cfg.hyper_width)
        out = cfg.n_head * cfg.memory_width
        self.kernel = self.param("kernel", init, (self.features * cfg.hyper_width, out))
        self.bias = self.param("bias", init, (self.features, out))
        if self.kinds:
            spread = self.out_scale / math.sqrt(
                cfg.memory_width * (cfg.hyper_width + 1)
            )
            width = cfg.n_head * self.kinds * (cfg.hyper_width + 1)
            self.value = nn.Dense(width, kernel_init=nn.initializers.normal(spread))
            if cfg.n_head > 1:
                self.merge = self.param(
                    "merge", nn.initializers.ones, (cfg.n_head, self.kinds)
                )

    def __call__(self, rows: Float[Array, "*batch E F"]) -> Float[Array, "*batch E Hy"]:
        """The hypernetwork's hidden layer u, on which W_in, w_out and b_out depend linearly."""
        return nn.relu(self.hidden(rows))

    def pooled(
        self,
        rows: Float[Array, "*batch E F"],
        hidden: Float[Array, "*batch E Hy"],
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch n H"]:
        """``sum_j x_j W_in(x_j)`` (or the mean over those present) for each head; a zero row adds nothing."""
        outer = jnp.einsum("...ef,...ey->...fy", rows, hidden)
        x = product(outer.reshape(*outer.shape[:-2], -1), self.kernel) + product(
            rows.sum(-2), self.bias
        )
        if self.config.pool == "mean":
            x /= jnp.maximum(mask.sum(-1, keepdims=True), 1)
        return x.reshape(*x.shape[:-1], self.config.n_head, self.config.memory_width)

    def values(
        self, hidden: Float[Array, "*batch E Hy"], memory: Float[Array, "*batch H"]
    ) -> Float[Array, "*batch E K"]:
        """``memory w_out(x_j) + b_out(x_j)``: what is constant in u_j, and its inner product with the rest."""
        n, width = self.config.n_head, self.config.hyper_width
        asking = self.value(memory).reshape(
            *memory.shape[:-1], n * self.kinds, width + 1
        )
        x = (
            jnp.einsum("...ey,...ky->...ek", hidden, asking[..., :width])
            + asking[..., None, :, width]
        )
        return merged(
            x.reshape(*x.shape[:-1], n, self.kinds), self.merge if n > 1 else None
        )


def merged(
    x: Float[Array, "*batch n K"], weights: Float[Array, "n K"] | None
) -> Float[Array, "*batch K"]:
    """The heads' outputs, weighted by a softmax over heads; the only one as it is."""
    return (
        x[..., 0, :]
        if weights is None
        else (x * jax.nn.softmax(weights, axis=0)).sum(-2)
    )
