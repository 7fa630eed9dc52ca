"""ST-HyperNet: a monotone network whose weights come from attention over entities (SPECTra, arXiv:2503.11726).

    Q_tot = sum_j (h |W2| + beta2)_j,   h = elu(q |W1| + beta1),   W1, W2 [N, N],  beta1, beta2 [N]

One hidden unit for each agent: a permutation of the agents permutes rows and columns of W alike, and leaves the sum
as it is. Nothing depends on the number of agents or of other entities, so a mixer can be moved to teams of any size.
The agents ask and all entities of the central state answer; ``entity_rows`` says where the agents' rows stand. Global
features are not read: what a mixer should know must be an entity.

Two forms are published: ``residual`` (football), and ``relu`` (SMACv2); both have ``embed=32, heads=4, norm=none``
and mix the values of the dead. Differs from the published code: the index
of the last action is no feature of a row, because an index of enemies breaks the invariance to their order; the
dead and the absent are masked, as keys, in W (rows and columns), beta, q and h, so that padding changes nothing;
keys of the softmax have no bias (it is blind to it, and Adam would turn rounding into drift); ``norm=mean`` divides
both |W| by the number of agents that count, without which a share dQ_tot/dq_i grows with the square of that number.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import check, check_range
from jmarl.networks.entities import EntityRows, entity_rows
from jmarl.networks.mixers.common import chosen, counted
from jmarl.nn.attention import attend
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class STHyperNetConfig:
    """Sizes and form; the parameters depend on the widths of the state's rows, and on no number of entities."""

    name: Literal["st_hypernet"]
    mask_dead: bool
    embed: int
    """Width of an entity's embedding."""
    heads: int
    form: Literal["residual", "relu"]
    """The two layers after the attention: added to their input, or followed by a relu."""
    norm: Literal["none", "mean"]
    """``mean``: the weights are divided by the number of agents that count."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("system.mixer.heads", self.heads, 1)
        check_range("system.mixer.embed", self.embed, 1)
        rule = f"must be a multiple of system.mixer.heads={self.heads}"
        check(self.embed % self.heads == 0, "system.mixer.embed", self.embed, rule)


class STHyperNet(nn.Module):
    """The mixing network of two layers, each with weights of its own hypernetwork."""

    spec: Spec
    config: STHyperNetConfig

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "*batch N A"],
        action: Int[Array, "*batch N"],
        obs: EntityObs,
    ) -> Float[Array, "*batch"]:
        """``q_tot``. A masked unit has h = elu(0) = 0."""
        counts = counted(obs, self.config.mask_dead)
        groups = entity_rows(obs, self.spec)
        w1, beta1 = EntityHypernet(self.config, name="first")(groups, counts)
        w2, beta2 = EntityHypernet(self.config, name="second")(groups, counts)
        taken = jnp.where(counts, chosen(q, action), 0.0)
        hidden = nn.elu(jnp.einsum("...i,...ij->...j", taken, w1) + beta1)
        return (jnp.einsum("...i,...ij->...j", hidden, w2) + beta2).sum(-1)


class EntityHypernet(nn.Module):
    """The weights |W| and biases of one layer.

    Parameters, k being ``embed`` and F_g the width of a row of group g: sum over g of (F_g + 1) k for embeddings,
    3 k^2 + 2 k for the attention (the published code has k more, the bias of the keys), 2 k for the norm, 4 (k^2 + k)
    for two networks of two layers, 4 (k^2 + k) for two pairs of projections, k for the seed.
    """

    config: STHyperNetConfig

    @nn.compact
    def __call__(
        self, groups: list[EntityRows], counts: Bool[Array, "*batch N"]
    ) -> tuple[Float[Array, "*batch N N"], Float[Array, "*batch N"]]:
        """Zero where an agent does not count."""
        width, n_agents = self.config.embed, counts.shape[-1]
        embedded = [nn.Dense(width, name=f"embed_{g.name}")(g.rows) for g in groups]
        agents, mask = (
            embedded[0][..., :n_agents, :],
            jnp.concatenate([g.mask for g in groups], axis=-1),
        )
        x = agents + Attention(width, self.config.heads, name="attention")(
            agents, jnp.concatenate(embedded, -2), mask
        )
        x = LayerNorm(name="norm")(x)
        seed = self.param("seed", nn.initializers.normal(1.0), (1, width))
        for_weights = self._layers(x, "weights")
        weights = jnp.abs(self._scores(for_weights, for_weights, "weights"))
        bias = self._scores(seed, self._layers(x, "bias"), "bias")[..., 0, :]
        weights = jnp.where(counts[..., None] & counts[..., None, :], weights, 0.0)
        return weights / self._divisor(counts), jnp.where(counts, bias, 0.0)

    def _layers(
        self, x: Float[Array, "*batch N k"], name: str
    ) -> Float[Array, "*batch N k"]:
        y = nn.relu(nn.Dense(self.config.embed, name=f"{name}_hidden")(x))
        y = nn.Dense(self.config.embed, name=f"{name}_out")(y)
        return x + y if self.config.form == "residual" else nn.relu(y)

    def _scores(
        self, asking: Array, asked: Float[Array, "*batch N k"], name: str
    ) -> Float[Array, "*batch M N"]:
        """Products of queries and keys over sqrt(k / heads), their mean over heads: one product over all k.

        No softmax follows, so here the bias of the keys matters.
        """
        width, heads = self.config.embed, self.config.heads
        query = nn.Dense(width, name=f"{name}_query")(asking)
        key = nn.Dense(width, name=f"{name}_key")(asked)
        return jnp.einsum("...ik,...jk->...ij", query, key) / (heads * width) ** 0.5

    def _divisor(
        self, counts: Bool[Array, "*batch N"]
    ) -> Float[Array, "*batch 1 1"] | float:
        if self.config.norm == "none":
            return 1.0
        return jnp.maximum(counts.sum(-1), 1)[..., None, None].astype(jnp.float32)


class Attention(nn.Module):
    """Multi-head attention over those keys that are there; no projection after it."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self,
        asking: Float[Array, "*batch N k"],
        asked: Float[Array, "*batch E k"],
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch N k"]:
        """Zero where nothing is there to answer."""
        q = self._split(nn.Dense(self.width, name="query")(asking))
        k = self._split(nn.Dense(self.width, use_bias=False, name="key")(asked))
        v = self._split(nn.Dense(self.width, name="value")(asked))
        heard = (
            attend(q, k, v, mask[..., None, None, :])
            .swapaxes(-2, -3)
            .reshape(asking.shape)
        )
        return jnp.where(mask.any(-1)[..., None, None], heard, 0.0)

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, -1).swapaxes(-2, -3)
