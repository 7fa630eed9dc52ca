"""SAQA: one query of an agent over itself and all entities (SPECTra, arXiv:2503.11726).

    e_0 = Dense(own), e_j = Dense_g(x_j)
    z = LN(e_0 + Attention(e_0; e_0, e_1, ...)),   h' = memory(h, z)
    q_own = Dense(h'),   q_j = mean over heads of <Q h', K e_j> / sqrt(p)

The reference is SPECTra's code for SMACv2. The agent is a key of its own query. There is no output
projection and no feed-forward layer. The keys of the action head are the embeddings e_j.

Except for the attention weights, all operations are linear in x_j. Embeddings, keys and values are
therefore never formed. A query is multiplied by the transposed projections and meets the raw rows.
The value projection is applied to their weighted mean. An entity costs 2 F multiplications per head
instead of dF + 2dd.

Differs from the code:
* Absent entities are masked. The code computes a mask and passes None. The embedding's bias of
  every dead or unseen unit is then a key, and padding changes the values.
* Attention keys have no bias, because it does not change a softmax.
* If several kinds of action target a slot, each kind has its own query. Any group can be a target.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check, check_range
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import self_and_entity_mask, visible_rows
from jmarl.networks.memory import Between, MemoryKind, make_memory
from jmarl.networks.sharing import SharingConfig
from jmarl.nn.attention import MASKED
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import JointDense, product
from jmarl.nn.norm import LayerNorm
from jmarl.types import Carry, EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class SAQAConfig(SharingConfig):
    """Sizes of a ``SAQA``; defaults are in ``configs/network/saqa.yaml``."""

    name: Literal["saqa"]
    memory: MemoryKind
    embed_dim: int
    n_head: int

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: If a value breaks a rule.
        """
        check_range("network.n_head", self.n_head, 1)
        check_range("network.embed_dim", self.embed_dim, 1)
        divides = self.embed_dim % self.n_head == 0
        rule = f"must be a multiple of network.n_head={self.n_head}"
        check(divides, "network.embed_dim", self.embed_dim, rule)


class SAQA(nn.Module):
    """Network from each agent's entities to one number per action; the interface of ``AgentNet``.

    The parameters do not depend on the number of agents or entities.
    """

    output_layers: ClassVar = ("own_actions", "aimed_actions")
    spec: Spec
    config: SAQAConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of every agent, with leaves ``[B, N, ...]``."""
        cfg = self.config
        memory = make_memory(cfg.memory, cfg.embed_dim)
        return memory.initial(batch, self.spec.n_agents)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        obs: EntityObs,
        first: Bool[Array, "T B"],
        between: Between | None = None,
    ) -> tuple[Carry, Float[Array, "T B N A"], Float[Array, "T B N D"]]:
        """Return the next memory, the outputs, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
            between: Function of the features, before the action values.
        """
        groups = self._embedded_groups(obs)
        mask = self_and_entity_mask(obs, range(len(obs.mask)))
        cfg = self.config
        _, embed_own = groups[0]
        own = embed_own(obs.own)  # [T, B, N, D]
        attention = QueryAttention(cfg.n_head, cfg.embed_dim, name="attention")
        x = LayerNorm(name="norm")(own + attention(own, groups, mask))
        reset = first[..., None] | obs.joined
        memory = make_memory(cfg.memory, cfg.embed_dim)
        carry, features = memory(carry, x, reset)
        x = between(features, features) if between else features
        aimed = self._aimed_values(x, groups[1:])
        own_actions = own_values(self.spec, x, self.out_scale)
        return carry, flat_actions(self.spec, own_actions, aimed), features

    def _embedded_groups(self, obs: EntityObs) -> list[EmbeddedRows]:
        """Return the rows of the agent itself, as a group of one, and of all other groups."""

        def embedded(rows: Array, name: str) -> EmbeddedRows:
            width = self.config.embed_dim
            return rows, Embedding(width, rows.shape[-1], name=name)

        groups = [embedded(obs.own[..., None, :], "own")]
        for group, rows in zip(self.spec.groups, visible_rows(obs), strict=True):
            groups.append(embedded(rows, f"embed_{group.name}"))
        return groups

    def _aimed_values(
        self, x: Float[Array, "T B N D"], groups: Sequence[EmbeddedRows]
    ) -> list[Float[Array, "T B N E K"]]:
        cfg = self.config
        kinds = slot_kinds(self.spec)
        if not any(kinds):
            return []
        head = InnerProduct(
            cfg.n_head, cfg.embed_dim, max(kinds), self.out_scale, name="aimed_actions"
        )
        values = head(x, groups)
        return [v[..., :n] for v, n in zip(values, kinds, strict=True) if n]


class Embedding(nn.Module):
    """Embedding ``e_j = x_j W + b`` of one group; it is never applied to the group's rows."""

    width: int
    features: int

    def setup(self) -> None:
        self.kernel = self.param("kernel", orthogonal(), (self.features, self.width))
        self.bias = self.param("bias", nn.initializers.zeros, (self.width,))

    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch D"]:
        return product(x, self.kernel) + self.bias

    def project(
        self, projection: Float[Array, "D P"]
    ) -> tuple[Float[Array, "F P"], Float[Array, " P"]]:
        """Return kernel and bias of the embedding followed by a projection."""
        return self.kernel @ projection, self.bias @ projection


EmbeddedRows = tuple[Float[Array, "*batch E F"], Embedding]
"""Rows of one group, and their embedding."""


class QueryAttention(nn.Module):
    """Multi-head attention of one query to the entities of all groups.

    Head h returns ``softmax_j(<q_h, e_j K_h> / sqrt(p)) (e_j V_h)``. A bias is added to the result.
    """

    n_head: int
    width: int

    @nn.compact
    def __call__(
        self,
        query_input: Float[Array, "*batch D"],
        groups: Sequence[EmbeddedRows],
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch D"]:
        """Return the attention's output; ``mask`` has the entities in the order of ``groups``."""
        shape = (self.width, self.width)
        key = self.param("key", orthogonal(), shape)
        value = self.param("value", orthogonal(), shape)
        bias = self.param("value_bias", nn.initializers.zeros, (self.width,))
        query = JointDense(self.width, scale=1.0, name="query")(query_input)
        query = self._split_heads(query)  # [..., n, P]
        scores = [
            self._scores(query, rows, *embedding.project(key))
            for rows, embedding in groups
        ]
        scores = jnp.concatenate(scores, axis=-1)  # [..., n, E]
        scores = jnp.where(mask[..., None, :], scores, MASKED)
        weights = nn.softmax(scores)
        sizes = [rows.shape[-2] for rows, _ in groups]
        ends = list(itertools.accumulate(sizes))
        group_weights = jnp.split(weights, ends[:-1], axis=-1)
        means = [
            self._weighted_mean(w, rows, *embedding.project(value))
            for w, (rows, embedding) in zip(group_weights, groups, strict=True)
        ]
        attended = sum(means[1:], start=means[0])  # [..., n, P]
        return attended.reshape(query_input.shape) + bias

    def _split_heads(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch n P"]:
        *batch, width = x.shape
        return x.reshape(*batch, self.n_head, width // self.n_head)

    def _scores(
        self,
        query: Float[Array, "*batch n P"],
        rows: Float[Array, "*batch E F"],
        kernel: Float[Array, "F D"],
        bias: Float[Array, " D"],
    ) -> Float[Array, "*batch n E"]:
        """Return the scaled scores of one group; ``kernel`` and ``bias`` map its rows to keys."""
        query /= query.shape[-1] ** 0.5
        row_query = jnp.einsum("...np,fnp->...nf", query, self._split_heads(kernel))
        scores = jnp.einsum("...nf,...ef->...ne", row_query, rows)
        constant = (query * self._split_heads(bias)).sum(-1, keepdims=True)
        return scores + constant

    def _weighted_mean(
        self,
        weights: Float[Array, "*batch n E"],
        rows: Float[Array, "*batch E F"],
        kernel: Float[Array, "F D"],
        bias: Float[Array, " D"],
    ) -> Float[Array, "*batch n P"]:
        """Return one group's weighted values; ``kernel`` and ``bias`` map its rows to values."""
        mean = jnp.einsum("...ne,...ef->...nf", weights, rows)
        values = jnp.einsum("...nf,fnp->...np", mean, self._split_heads(kernel))
        return values + weights.sum(-1, keepdims=True) * self._split_heads(bias)


class InnerProduct(nn.Module):
    """Values of the actions aimed at entities, as inner products of queries and keys.

    The memory gives one query per kind of action, and each entity gives one key. The keys have a
    bias. No softmax follows, so the bias shifts all aimed actions relative to the own ones.
    """

    n_head: int
    width: int
    kinds: int
    scale: float

    @nn.compact
    def __call__(
        self, memory: Float[Array, "*batch D"], groups: Sequence[EmbeddedRows]
    ) -> list[Float[Array, "*batch E K"]]:
        """Return ``<Q h, e_j K + b>`` for each group; the mean over heads is a constant factor."""
        width = self.width
        init = orthogonal(self.scale)
        query = nn.Dense(self.kinds * width, kernel_init=init, name="query")(memory)
        query = query.reshape(*memory.shape[:-1], self.kinds, width)  # [..., K, D]
        query /= (self.n_head * width) ** 0.5  # heads x the root of a head's width
        key = self.param("key", orthogonal(), (width, width))
        key_bias = self.param("key_bias", nn.initializers.zeros, (width,))
        values = []
        for rows, embedding in groups:
            kernel, bias = embedding.project(key)
            row_query = product(query, kernel.T)  # [..., K, F]
            constant = query @ (bias + key_bias)  # [..., K]
            scores = jnp.einsum("...ef,...kf->...ek", rows, row_query)
            values.append(scores + constant[..., None, :])
        return values
