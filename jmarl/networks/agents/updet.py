"""UPDeT: a transformer over own features, entities and a hidden token (Hu et al. 2021, arXiv:2101.08001).

    X = [h | own | entities],   x = LN(x + MHA(x)), x = LN(x + FF(x)) n_block times,   y = Dense(x),   h' = y_h
    q_own = Dense_own(y_own),   q_j = mean over the outputs of Dense_own(y_j)

Every head has the full width of a token; queries, keys and values have no bias. The hidden token is the memory: it is
carried as it is, neither embedded nor gated. Rows of all groups are padded with zeros to one width and embedded by one
layer, so that nothing but the place of the padding tells a kind of entity.

The last block asks for the tokens alone that are read: own, hidden, and the groups that actions aim at. Time is a scan
over the whole transformer, recomputed in the backward pass, which keeps the memory of a rollout that of its tokens.

Differs from the published code, where an absent entity is a token like any other: attention is masked. A slot that
several kinds of action aim at has a layer of its own for all kinds but the first; any group can be aimed at.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check_range
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import visible_rows
from jmarl.nn.attention import attend
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import JointDense
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class UPDeTConfig:
    """Sizes of an ``UPDeT``; defaults are in ``configs/network/updet.yaml``."""

    name: Literal["updet"]
    embed_dim: int
    n_head: int
    n_block: int
    mlp_width: int

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        for key in ("embed_dim", "n_head", "n_block", "mlp_width"):
            check_range(f"network.{key}", getattr(self, key), 1)


class UPDeT(nn.Module):
    """One number for each action of each agent, from its entities; the interface of ``AgentNet``.

    Parameters are the same for any number of agents and entities.
    """

    spec: Spec
    config: UPDeTConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Float[Array, "B N D"]:
        """The hidden token of every agent."""
        return jnp.zeros((batch, self.spec.n_agents, self.config.embed_dim))

    @nn.compact
    def __call__(
        self, carry: Float[Array, "B N D"], obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B N D"], Float[Array, "T B N A"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to outputs."""
        kinds = slot_kinds(self.spec)
        order = sorted(range(len(kinds)), key=lambda i: kinds[i] == 0)
        asked = [i for i in order if kinds[i]]
        ends = list(
            itertools.accumulate((self.spec.groups[i].size for i in asked), initial=0)
        )
        tokens = JointDense(self.config.embed_dim, scale=1.0, name="embed")(
            self._padded(obs, order)
        )
        mask = jnp.concatenate(
            [jnp.ones((*obs.alive.shape, 1), bool), *(obs.mask[i] for i in order)],
            axis=-1,
        )
        step = nn.remat(Step, prevent_cse=False)(self.config, 1 + ends[-1], name="step")
        scan = nn.scan(
            lambda step, carry, inputs: step(carry, *inputs),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        carry, read = scan(step, carry, (tokens, mask, first[..., None] | obs.joined))
        own, values = self._values(read, max(kinds, default=0))
        spans = zip(asked, itertools.pairwise(ends), strict=True)
        return carry, flat_actions(
            self.spec, own, [values[..., a:b, : kinds[i]] for i, (a, b) in spans]
        )

    def _padded(self, obs: EntityObs, order: list[int]) -> Float[Array, "T B N E F"]:
        """Own features, then the groups in that order, as rows of one width."""
        rows = visible_rows(obs)
        tokens = [obs.own[..., None, :], *(rows[i] for i in order)]
        width = max(x.shape[-1] for x in tokens)
        return jnp.concatenate([_pad(x, width) for x in tokens], axis=-2)

    def _values(
        self, read: Float[Array, "T B N E D"], kinds: int
    ) -> tuple[Float[Array, "T B N O"], Float[Array, "T B N E K"]]:
        """Own actions from the first token; from every other one value for each kind of action."""
        values = own_values(self.spec, read, self.out_scale)
        own, aimed = values[..., 0, :], values[..., 1:, :]
        shared = [aimed.mean(-1, keepdims=True)] if aimed.shape[-1] else []
        more = kinds - len(shared)
        if more > 0:
            layer = nn.Dense(
                more, kernel_init=orthogonal(self.out_scale), name="more_kinds"
            )
            shared.append(layer(read[..., 1:, :]))
        return own, jnp.concatenate(shared, axis=-1)


def _pad(x: Float[Array, "*batch F"], width: int) -> Float[Array, "*batch {width}"]:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


class Step(nn.Module):
    """The transformer of one time step; the hidden token stands first."""

    config: UPDeTConfig
    n_read: int

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B N D"],
        tokens: Float[Array, "B N E D"],
        mask: Bool[Array, "B N E"],
        start: Bool[Array, "B N"],
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N R D"]]:
        """The next hidden token, and the first ``n_read`` other ones."""
        hidden = jnp.where(start[..., None], 0.0, hidden)
        x = jnp.concatenate([hidden[..., None, :], tokens], axis=-2)
        mask = jnp.concatenate([jnp.ones_like(mask[..., :1]), mask], axis=-1)
        for i in range(self.config.n_block):
            last = i == self.config.n_block - 1
            x = Block(self.config, name=f"block_{i}")(
                x[..., : 1 + self.n_read, :] if last else x, x, mask
            )
        x = JointDense(self.config.embed_dim, scale=1.0, name="out")(x)
        return x[..., 0, :], x[..., 1:, :]


class Block(nn.Module):
    """``x = LN(x + MHA(x)); x = LN(x + FF(x))`` for the tokens that ask."""

    config: UPDeTConfig

    @nn.compact
    def __call__(
        self,
        asking: Float[Array, "*batch I D"],
        x: Float[Array, "*batch J D"],
        mask: Bool[Array, "*batch J"],
    ) -> Float[Array, "*batch I D"]:
        """Attention over the tokens that ``mask`` shows."""
        cfg = self.config
        width = cfg.n_head * cfg.embed_dim

        def dense(x, name):
            return nn.Dense(width, use_bias=False, kernel_init=orthogonal(), name=name)(
                x
            )

        q, k, v = (
            self._split(y)
            for y in (dense(asking, "query"), dense(x, "key"), dense(x, "value"))
        )
        mixed = (
            attend(q, k, v, mask[..., None, None, :])
            .swapaxes(-2, -3)
            .reshape(*asking.shape[:-1], width)
        )
        x = LayerNorm(name="norm_mix")(
            asking + JointDense(cfg.embed_dim, scale=1.0, name="mix")(mixed)
        )
        y = nn.relu(JointDense(cfg.mlp_width, name="mlp_in")(x))
        return LayerNorm(name="norm_mlp")(
            x + JointDense(cfg.embed_dim, scale=1.0, name="mlp_out")(y)
        )

    def _split(self, x: Float[Array, "*batch I W"]) -> Float[Array, "*batch n I D"]:
        return x.reshape(
            *x.shape[:-1], self.config.n_head, self.config.embed_dim
        ).swapaxes(-2, -3)
