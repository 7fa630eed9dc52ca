"""ST-HyperNet: a monotone network with weights from attention to entities.

SPECTra (arXiv:2503.11726).

    Q_tot = sum_j (h |W2| + beta2)_j,   h = elu(q |W1| + beta1),   W1, W2 [N, N],  beta1, beta2 [N]

There is one hidden unit per agent. A permutation of the agents permutes rows and columns of W alike
and leaves the sum unchanged. The parameters do not depend on the number of agents or of other
entities, so a mixer can be transferred to teams of any size. The agents' rows give the queries, and
all entities of the central state give keys and values. ``entity_rows`` defines the position of the
agents' rows. Global features are not read. Information for the mixer must be in an entity's row.

Two forms are published: ``residual`` (football), and ``relu`` (SMACv2). Both have ``embed=32,
heads=4, norm=none`` and mix the values of dead agents.

Differs from the published code:
* The index of the last action is not a feature of a row. An index of enemies breaks the invariance
  to their order.
* Dead and absent agents are masked, as keys, in W (rows and columns), beta, q and h. Padding
  therefore changes nothing.
* Keys of the softmax have no bias. A softmax does not depend on it, and Adam would amplify
  rounding errors into drift.
* The seed of the biases starts at zero instead of N(0, 1), so the biases do, too. On ``smax_3m``,
  random biases delay learning: the win rate after 250,000 rows is 0.62 with them and 0.82 without
  (``results/learning``, ``mixer_random_biases`` and ``mixer``).
* ``norm=mean`` divides both |W| by the number of unmasked agents. Otherwise a share dQ_tot/dq_i
  grows with the square of that number.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check, check_range
from jmarl.networks.entities import EntityRows, attend_to_entities, entity_rows
from jmarl.networks.mixers.common import (
    Actions,
    AgentQ,
    TeamQ,
    agent_mask,
    q_of_actions,
)
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class STHyperNetConfig:
    """Sizes and form of ``STHyperNet``.

    The parameters depend on the widths of the state's rows, and on no number of entities.
    """

    name: Literal["st_hypernet"]
    mask_dead: bool
    embed: int
    """Width of an entity's embedding."""
    heads: int
    form: Literal["residual", "relu"]
    """Use of the two layers after the attention: added to their input, or followed by a relu."""
    norm: Literal["none", "mean"]
    """``mean``: the weights are divided by the number of unmasked agents."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: If a size breaks a rule.
        """
        check_range("system.mixer.heads", self.heads, 1)
        check_range("system.mixer.embed", self.embed, 1)
        rule = f"must be a multiple of system.mixer.heads={self.heads}"
        check(self.embed % self.heads == 0, "system.mixer.embed", self.embed, rule)


class STHyperNet(nn.Module):
    """Mixing network of two layers, each with its own hypernetwork."""

    spec: Spec
    config: STHyperNetConfig

    @nn.compact
    def __call__(self, q: AgentQ, action: Actions, obs: EntityObs) -> TeamQ:
        mask = agent_mask(obs, self.config.mask_dead)
        groups = entity_rows(obs, self.spec)
        w1, beta1 = EntityHypernet(self.config, name="first")(groups, mask)
        w2, beta2 = EntityHypernet(self.config, name="second")(groups, mask)
        taken = jnp.where(mask, q_of_actions(q, action), 0.0)
        # [..., N]; a masked unit is elu(0) = 0
        # values are not rounded, in any precision of a run
        mix = partial(jnp.einsum, "...i,...ij->...j", precision="highest")
        hidden = nn.elu(mix(taken, w1) + beta1)
        return (mix(hidden, w2) + beta2).sum(-1)


class EntityHypernet(nn.Module):
    """Hypernetwork for the weights |W| and the biases of one layer.

    Number of parameters, with k = ``embed`` and F_g the width of a row of group g:
    * embeddings: sum over g of (F_g + 1) k
    * attention: 3 k^2 + 2 k (the published code has k more, the bias of the keys)
    * norm: 2 k
    * two networks of two layers: 4 (k^2 + k)
    * two pairs of projections: 4 (k^2 + k)
    * seed: k
    """

    config: STHyperNetConfig

    @nn.compact
    def __call__(
        self, groups: list[EntityRows], agent_mask: Bool[Array, "*batch N"]
    ) -> tuple[Float[Array, "*batch N N"], Float[Array, "*batch N"]]:
        """Return weights and biases, which are zero for masked agents."""
        width = self.config.embed
        x = self._encode_agents(groups, n_agents=agent_mask.shape[-1])
        seed = self.param("seed", nn.initializers.zeros, (1, width))
        weight_input = self._layers(x, "weights")
        weights = jnp.abs(self._scores(weight_input, weight_input, "weights"))
        bias_input = self._layers(x, "bias")
        bias = self._scores(seed, bias_input, "bias")[..., 0, :]
        pair_mask = agent_mask[..., None] & agent_mask[..., None, :]
        weights = jnp.where(pair_mask, weights, 0.0)
        bias = jnp.where(agent_mask, bias, 0.0)
        return weights / self._divisor(agent_mask), bias

    def _encode_agents(
        self, groups: list[EntityRows], n_agents: int
    ) -> Float[Array, "*batch N k"]:
        """Return the agents' embeddings after attention to all entities."""
        width = self.config.embed
        embedded = [nn.Dense(width, name=f"embed_{g.name}")(g.rows) for g in groups]
        agents = embedded[0][..., :n_agents, :]
        entities = jnp.concatenate(embedded, -2)
        mask = jnp.concatenate([g.mask for g in groups], axis=-1)
        attention = Attention(width, self.config.heads, name="attention")
        return LayerNorm(name="norm")(agents + attention(agents, entities, mask))

    def _layers(
        self, x: Float[Array, "*batch N k"], name: str
    ) -> Float[Array, "*batch N k"]:
        width = self.config.embed
        y = nn.relu(nn.Dense(width, name=f"{name}_hidden")(x))
        y = nn.Dense(width, name=f"{name}_out")(y)
        return x + y if self.config.form == "residual" else nn.relu(y)

    def _scores(
        self, query_input: Array, key_input: Float[Array, "*batch N k"], name: str
    ) -> Float[Array, "*batch M N"]:
        """Return products of queries and keys over sqrt(k / heads), averaged over heads.

        The mean over heads is one product over all k. No softmax follows, so the keys have a bias.
        """
        width, heads = self.config.embed, self.config.heads
        query = nn.Dense(width, name=f"{name}_query")(query_input)
        key = nn.Dense(width, name=f"{name}_key")(key_input)
        return jnp.einsum("...ik,...jk->...ij", query, key) / (heads * width) ** 0.5

    def _divisor(
        self, agent_mask: Bool[Array, "*batch N"]
    ) -> Float[Array, "*batch 1 1"] | float:
        if self.config.norm == "none":
            return 1.0
        n_unmasked = jnp.maximum(agent_mask.sum(-1), 1)
        return n_unmasked[..., None, None].astype(jnp.float32)


class Attention(nn.Module):
    """Multi-head attention to unmasked entities, without an output projection."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self,
        query_input: Float[Array, "*batch N k"],
        entities: Float[Array, "*batch E k"],
        mask: Bool[Array, "*batch E"],
    ) -> Float[Array, "*batch N k"]:
        """Return the attention's output, which is zero if all entities are masked."""
        query = nn.Dense(self.width, name="query")(query_input)
        key = nn.Dense(self.width, use_bias=False, name="key")(entities)
        value = nn.Dense(self.width, name="value")(entities)
        attended = attend_to_entities(query, key, value, mask, self.heads)
        any_entity = mask.any(-1)[..., None, None]
        return jnp.where(any_entity, attended, 0.0)
