"""SAQA: one query of an agent over itself and all entities (SPECTra, arXiv:2503.11726; its SMACv2 code).

    e_0 = Dense(own), e_j = Dense_g(x_j),   z = LN(e_0 + Attention(e_0; e_0, e_1, ...)),   h' = memory(h, z)
    q_own = Dense(h'),   q_j = mean over heads of <Q h', K e_j> / sqrt(p)

The agent is a key of its own query; there is no output projection and no feed-forward layer; the action head asks the
embeddings from before the attention. All but the weights of the attention is linear in x_j, so neither embeddings nor
keys nor values are ever formed: a query goes through the projections the other way, to meet the rows as they are, and
the value projection is applied to their weighted mean. An entity costs 2 F heads multiplications instead of dF + 2dd.

Differs from the code: absent entities are masked (it computes a mask and passes None, so that the embedding's bias of
every dead or unseen unit is a key and padding changes the values); attention keys have no bias, to which a softmax is
blind; a slot that several kinds of action aim at has a query for each kind, and any group can be aimed at.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check, check_range
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import visible_rows
from jmarl.networks.memory import MemoryKind, make_memory
from jmarl.nn.attention import MASKED
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import JointDense, product
from jmarl.nn.norm import LayerNorm
from jmarl.types import Carry, EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class SAQAConfig:
    """Sizes of a ``SAQA``; defaults are in ``configs/network/saqa.yaml``."""

    name: Literal["saqa"]
    memory: MemoryKind
    embed_dim: int
    n_head: int

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        check_range("network.n_head", self.n_head, 1)
        check_range("network.embed_dim", self.embed_dim, 1)
        check(
            self.embed_dim % self.n_head == 0,
            "network.embed_dim",
            self.embed_dim,
            "must divide by network.n_head",
        )


class SAQA(nn.Module):
    """One number for each action of each agent, from its entities; the interface of ``AgentNet``.

    Parameters are the same for any number of agents and entities.
    """

    spec: Spec
    config: SAQAConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Memory of every agent."""
        return make_memory(self.config.memory, self.config.embed_dim).initial(
            batch, self.spec.n_agents
        )

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to outputs."""
        cfg, spec, kinds = self.config, self.spec, slot_kinds(self.spec)
        groups = [
            (rows, Embedding(cfg.embed_dim, rows.shape[-1], name=name))
            for name, rows in self._rows(obs)
        ]
        mask = jnp.concatenate(
            [jnp.ones((*obs.alive.shape, 1), bool), *obs.mask], axis=-1
        )
        own = groups[0][1](obs.own)
        heard = QueryAttention(cfg.n_head, cfg.embed_dim, name="attention")(
            own, groups, mask
        )
        x = LayerNorm(name="norm")(own + heard)
        carry, x = make_memory(cfg.memory, cfg.embed_dim)(
            carry, x, first[..., None] | obs.joined
        )
        head = InnerProduct(
            cfg.n_head,
            cfg.embed_dim,
            max(kinds, default=0),
            self.out_scale,
            name="aimed_actions",
        )
        aimed = head(x, groups[1:]) if any(kinds) else []
        aimed = [values[..., :n] for values, n in zip(aimed, kinds, strict=False) if n]
        return carry, flat_actions(spec, own_values(spec, x, self.out_scale), aimed)

    def _rows(self, obs: EntityObs) -> list[tuple[str, Float[Array, "T B N E F"]]]:
        """The agent as a group of one, then the groups, each with the name of its embedding."""
        groups = zip(self.spec.groups, visible_rows(obs), strict=True)
        return [
            ("own", obs.own[..., None, :]),
            *((f"embed_{group.name}", rows) for group, rows in groups),
        ]


class Embedding(nn.Module):
    """``e_j = x_j W + b``: the embedding of one group, which is never applied to its rows."""

    width: int
    features: int

    def setup(self) -> None:
        """A dense layer's parameters."""
        self.kernel = self.param("kernel", orthogonal(), (self.features, self.width))
        self.bias = self.param("bias", nn.initializers.zeros, (self.width,))

    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch D"]:
        """The embedding itself."""
        return product(x, self.kernel) + self.bias

    def projected(
        self, by: Float[Array, "D P"]
    ) -> tuple[Float[Array, "F P"], Float[Array, " P"]]:
        """Kernel and bias of the embedding and a projection of it, as one linear map of the rows."""
        return self.kernel @ by, self.bias @ by


Groups = Sequence[tuple[Float[Array, "*batch E F"], Embedding]]


class QueryAttention(nn.Module):
    """Multi-head attention of one query: ``softmax_j(<q_h, e_j K_h> / sqrt(p)) (e_j V_h)`` of each head, and a bias."""

    n_head: int
    width: int

    @nn.compact
    def __call__(
        self,
        asking: Float[Array, "*batch D"],
        groups: Groups,
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch D"]:
        """Over the entities of all groups, in their order in ``mask``."""
        key, value = (
            self.param(name, orthogonal(), (self.width, self.width))
            for name in ("key", "value")
        )
        bias = self.param("value_bias", nn.initializers.zeros, (self.width,))
        query = self._split(JointDense(self.width, scale=1.0, name="query")(asking))
        scores = [
            self._scores(query, rows, *embed.projected(key)) for rows, embed in groups
        ]
        scores = jnp.where(mask[..., None, :], jnp.concatenate(scores, axis=-1), MASKED)
        ends = list(itertools.accumulate(rows.shape[-2] for rows, _ in groups))
        weights = jnp.split(nn.softmax(scores), ends[:-1], axis=-1)
        heard = [
            self._mean(w, *group, value)
            for w, group in zip(weights, groups, strict=True)
        ]
        return sum(heard[1:], start=heard[0]).reshape(asking.shape) + bias

    def _split(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch n P"]:
        return x.reshape(*x.shape[:-1], self.n_head, self.width // self.n_head)

    def _scores(
        self,
        query: Float[Array, "*batch n P"],
        rows: Float[Array, "*batch E F"],
        kernel: Float[Array, "F D"],
        bias: Float[Array, " D"],
    ) -> Float[Array, "*batch n E"]:
        query /= query.shape[-1] ** 0.5
        asked = jnp.einsum("...np,fnp->...nf", query, self._split(kernel))
        return jnp.einsum("...nf,...ef->...ne", asked, rows) + (
            query * self._split(bias)
        ).sum(-1, keepdims=True)

    def _mean(
        self,
        weights: Float[Array, "*batch n E"],
        rows: Float[Array, "*batch E F"],
        embed: Embedding,
        value: Float[Array, "D D"],
    ) -> Float[Array, "*batch n P"]:
        kernel, bias = embed.projected(value)
        mean = jnp.einsum("...ne,...ef->...nf", weights, rows)
        mixed = jnp.einsum("...nf,fnp->...np", mean, self._split(kernel))
        return mixed + weights.sum(-1, keepdims=True) * self._split(bias)


class InnerProduct(nn.Module):
    """Values of the actions aimed at entities: a query of the memory for each kind, a key for each entity.

    Its keys keep their bias: no softmax follows, so it moves all aimed actions against the own ones.
    """

    n_head: int
    width: int
    kinds: int
    scale: float

    @nn.compact
    def __call__(
        self, memory: Float[Array, "*batch D"], groups: Groups
    ) -> list[Float[Array, "*batch E K"]]:
        """``<Q h, e_j K + b>`` for each group; the mean over heads is a factor."""
        init, shape = (
            orthogonal(self.scale),
            (*memory.shape[:-1], self.kinds, self.width),
        )
        query = nn.Dense(self.kinds * self.width, kernel_init=init, name="query")(
            memory
        ).reshape(shape)
        query /= (self.n_head * self.width) ** 0.5  # heads x the root of a head's width
        key = self.param("key", orthogonal(), (self.width, self.width))
        key_bias = self.param("key_bias", nn.initializers.zeros, (self.width,))
        values = []
        for rows, embed in groups:
            kernel, bias = embed.projected(key)
            asked, constant = product(query, kernel.T), query @ (bias + key_bias)
            values.append(
                jnp.einsum("...ef,...kf->...ek", rows, asked) + constant[..., None, :]
            )
        return values
