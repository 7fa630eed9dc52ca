"""UPDeT: a transformer over own features, entities and a hidden token.

Hu et al. 2021 (arXiv:2101.08001).

    X = [h | own | entities]
    x = LN(x + MHA(x)), x = LN(x + FF(x)) n_block times,   y = Dense(x),   h' = y_h
    q_own = Dense_own(y_own),   q_j = mean over the outputs of Dense_own(y_j)

Every head has the full width of a token. Queries, keys and values have no bias. The hidden token is
the memory. It is carried unchanged, neither embedded nor gated. The rows of all groups are padded
with zeros to one width and embedded by one layer. Only the position of the padding tells kinds of
entities apart.

The last block computes queries only for the tokens that are read: own, hidden, and the groups that
actions target. Time is a scan over the whole transformer. It is recomputed in the backward pass, so
a rollout needs only the memory of its tokens.

Differs from the published code, in which an absent entity is a token like any other: attention is
masked. If several kinds of action target a slot, an additional layer gives the values of all kinds
but the first. Any group can be a target.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check_range
from jmarl.config.schema import MAX_BLOCKS
from jmarl.networks.agents.slots import flat_actions, own_values, slot_kinds
from jmarl.networks.entities import (
    attend_to_entities,
    self_and_entity_mask,
    visible_rows,
)
from jmarl.networks.memory import Between, scan_module
from jmarl.networks.sharing import SharingConfig
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import JointDense
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Spec


@dataclasses.dataclass(frozen=True)
class UPDeTConfig(SharingConfig):
    """Sizes of an ``UPDeT``; defaults are in ``configs/network/updet.yaml``."""

    name: Literal["updet"]
    embed_dim: int
    n_head: int
    n_block: int
    mlp_width: int

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: If a value is out of range.
        """
        for key in ("embed_dim", "n_head", "mlp_width"):
            check_range(f"network.{key}", getattr(self, key), 1)
        check_range("network.n_block", self.n_block, 1, MAX_BLOCKS)


class UPDeT(nn.Module):
    """Network from each agent's entities to one number per action; the interface of ``AgentNet``.

    The parameters do not depend on the number of agents or entities.
    """

    output_layers: ClassVar = ("own_actions", "more_kinds")
    spec: Spec
    config: UPDeTConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Float[Array, "B N D"]:
        """Return the initial hidden token of every agent."""
        return jnp.zeros((batch, self.spec.n_agents, self.config.embed_dim))

    @nn.compact
    def __call__(
        self,
        carry: Float[Array, "B N D"],
        obs: EntityObs,
        first: Bool[Array, "T B"],
        between: Between | None = None,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "T B N A"], Float[Array, "T B N D"]]:
        """Return the next hidden token, the outputs, and the hidden tokens of all rows.

        Args:
            carry: Hidden token before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
            between: Function of the hidden tokens and of the tokens ``[T, B, N, 1+E, D]`` that the
                action values read.
        """
        width = self.config.embed_dim
        kinds = slot_kinds(self.spec)
        # Targeted groups come first, so the last block reads a prefix of the tokens.
        order = sorted(range(len(kinds)), key=lambda i: kinds[i] == 0)
        targeted = [i for i in order if kinds[i]]
        sizes = [self.spec.groups[i].size for i in targeted]
        ends = list(itertools.accumulate(sizes, initial=0))
        rows = self._padded_rows(obs, order)
        tokens = JointDense(width, scale=1.0, name="embed")(rows)  # [T, B, N, 1+E, D]
        mask = self_and_entity_mask(obs, order)
        step = nn.remat(Step, prevent_cse=False)
        step = step(self.config, n_read=1 + ends[-1], name="step")
        reset = first[..., None] | obs.joined
        carry, (hidden, read) = scan_module(step, carry, (tokens, mask, reset))
        if between:
            read = between(hidden, read)
        own, values = self._values(read, max(kinds, default=0))
        spans = zip(targeted, itertools.pairwise(ends), strict=True)
        aimed = [values[..., start:end, : kinds[i]] for i, (start, end) in spans]
        return carry, flat_actions(self.spec, own, aimed), hidden

    def _padded_rows(
        self, obs: EntityObs, order: Sequence[int]
    ) -> Float[Array, "T B N E F"]:
        """Return own features and the groups in ``order``, as rows of one width."""
        own = obs.own[..., None, :]
        groups = visible_rows(obs)
        rows = [own, *(groups[i] for i in order)]
        width = max(x.shape[-1] for x in rows)
        padded = [_pad(x, width) for x in rows]
        return jnp.concatenate(padded, axis=-2)

    def _values(
        self, read: Float[Array, "T B N E D"], kinds: int
    ) -> tuple[Float[Array, "T B N O"], Float[Array, "T B N E K"]]:
        """Return own values from the first token, and one value per kind from each other token."""
        values = own_values(self.spec, read, self.out_scale)
        own = values[..., 0, :]
        aimed = values[..., 1:, :]
        per_kind = [aimed.mean(-1, keepdims=True)] if aimed.shape[-1] else []
        more = kinds - len(per_kind)
        if more > 0:
            init = orthogonal(self.out_scale)
            layer = nn.Dense(more, kernel_init=init, name="more_kinds")
            per_kind.append(layer(read[..., 1:, :]))
        return own, jnp.concatenate(per_kind, axis=-1)


def _pad(x: Float[Array, "*batch F"], width: int) -> Float[Array, "*batch {width}"]:
    padding = [(0, 0)] * x.ndim
    padding[-1] = (0, width - x.shape[-1])
    return jnp.pad(x, padding)


class Step(nn.Module):
    """Transformer of one time step; the first token is the hidden one."""

    config: UPDeTConfig
    n_read: int

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B N D"],
        tokens: Float[Array, "B N E D"],
        mask: Bool[Array, "B N E"],
        reset: Bool[Array, "B N"],
    ) -> tuple[
        Float[Array, "B N D"], tuple[Float[Array, "B N D"], Float[Array, "B N R D"]]
    ]:
        """Return the next hidden token, and once more with the first ``n_read`` other tokens."""
        hidden = jnp.where(reset[..., None], 0.0, hidden)
        x = jnp.concatenate([hidden[..., None, :], tokens], axis=-2)
        hidden_mask = jnp.ones_like(mask[..., :1])
        mask = jnp.concatenate([hidden_mask, mask], axis=-1)
        for i in range(self.config.n_block):
            is_last = i == self.config.n_block - 1
            query_input = x[..., : 1 + self.n_read, :] if is_last else x
            x = Block(self.config, name=f"block_{i}")(query_input, x, mask)
        x = JointDense(self.config.embed_dim, scale=1.0, name="out")(x)
        hidden = x[..., 0, :]
        return hidden, (hidden, x[..., 1:, :])


class Block(nn.Module):
    """Transformer block ``x = LN(x + MHA(x)); x = LN(x + FF(x))`` for the query tokens."""

    config: UPDeTConfig

    @nn.compact
    def __call__(
        self,
        query_input: Float[Array, "*batch I D"],
        x: Float[Array, "*batch J D"],
        mask: Bool[Array, "*batch J"],
    ) -> Float[Array, "*batch I D"]:
        cfg = self.config
        query = self._project(query_input, "query")
        key = self._project(x, "key")
        value = self._project(x, "value")
        attended = attend_to_entities(query, key, value, mask, cfg.n_head)
        mixed = JointDense(cfg.embed_dim, scale=1.0, name="mix")(attended)
        x = LayerNorm(name="norm_mix")(query_input + mixed)
        y = nn.relu(JointDense(cfg.mlp_width, name="mlp_in")(x))
        y = JointDense(cfg.embed_dim, scale=1.0, name="mlp_out")(y)
        return LayerNorm(name="norm_mlp")(x + y)

    def _project(
        self, x: Float[Array, "*batch L D"], name: str
    ) -> Float[Array, "*batch L W"]:
        width = self.config.n_head * self.config.embed_dim
        init = orthogonal()
        return nn.Dense(width, use_bias=False, kernel_init=init, name=name)(x)
