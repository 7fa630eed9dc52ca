"""Latents of agents: their encoder, their draws over time, and a value network that reads them.

SHPPO (Guo et al. 2024, arXiv:2404.03869) draws a latent ``l ~ N(mu, sigma^2)`` for each agent. The
encoder computes mu and sigma from the agent's observation and its features of the previous row.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check_range
from jmarl.networks.entities import attend_to_entities, entity_rows, zero_masked
from jmarl.networks.flatten import obs_parts, state_parts
from jmarl.networks.heads import value_head
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import MLP, JointDense
from jmarl.types import EntityObs, Spec


LOG_SIGMA = (-4.0, 1.0)
"""Bounds of the log standard deviation of a latent. Without them, the entropy has no minimum."""


class Latents(NamedTuple):
    """Latents and the distributions that they were drawn from."""

    latent: Float[Array, "*batch N K"]
    mu: Float[Array, "*batch N K"]
    log_sigma: Float[Array, "*batch N K"]


class LatentEncoder(nn.Module):
    """Three-layer network from observation and previous features to mu and log sigma.

    With ``own_only``, the observation is reduced to the agent's own features, so that the
    parameters fit teams of any size.
    """

    spec: Spec
    size: int
    width: int
    own_only: bool

    @nn.compact
    def __call__(
        self, obs: EntityObs, before: Float[Array, "*batch N H"]
    ) -> tuple[Float[Array, "*batch N K"], Float[Array, "*batch N K"]]:
        """Return mu and log sigma.

        Args:
            obs: Observations ``[..., N]``.
            before: Features of the previous row, zero at the start of an episode.
        """
        parts = (obs.own,) if self.own_only else obs_parts(obs, self.spec)
        sizes = (self.width, self.width)
        x = MLP(sizes, layer_norm=True, name="layers")(*parts, before)
        init = orthogonal(0.1)
        out = nn.Dense(2 * self.size, kernel_init=init, name="out")(x)
        mu, log_sigma = jnp.split(out, 2, axis=-1)
        return mu, bound_log_sigma(log_sigma)


@jax.custom_vjp
def bound_log_sigma(x: Float[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """Clip log standard deviations to ``LOG_SIGMA``, with gradients that lead back from a bound.

    The gradient beyond a bound is the identity if descent leads back to the bound, and zero if it
    leads further away. The gradient of ``jnp.clip`` is zero beyond a bound, so a deviation that
    reached its bound would never change again.
    """
    return jnp.clip(x, *LOG_SIGMA)


def _bound_forward(x):
    return bound_log_sigma(x), x


def _bound_backward(x, grad):
    low, high = LOG_SIGMA
    leads_away = (x <= low) & (grad > 0) | (x >= high) & (grad < 0)
    return (jnp.where(leads_away, 0.0, grad),)


bound_log_sigma.defvjp(_bound_forward, _bound_backward)


def forward_fill(drawn: Bool[Array, "T B N"], fresh: Latents, held: Latents) -> Latents:
    """Return the latents in use: in each row, those of the agent's most recent draw.

    Args:
        drawn: True in rows in which an agent draws a latent.
        fresh: Latents that each row would draw, leaves ``[T, B, N, K]``.
        held: Latents in use before row 0, leaves ``[B, N, K]``.

    Returns:
        Latents with leaves ``[T, B, N, K]``.
    """
    count = jnp.arange(1, len(drawn) + 1)
    draws = jnp.where(drawn, count[:, None, None], 0)
    last = jax.lax.cummax(draws)[..., None]  # 0: the latents before row 0

    def select(fresh: jax.Array, held: jax.Array) -> jax.Array:
        rows = jnp.concatenate([held[None], fresh])
        return jnp.take_along_axis(rows, last, axis=0, mode="clip")

    return jax.tree.map(select, fresh, held)


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """Size and form of an ``InferenceNet``; defaults are in ``configs/system/shppo.yaml``."""

    pool: Literal["concat", "mean", "attn"]
    width: int

    def __post_init__(self) -> None:
        """Check the width.

        Raises:
            ConfigError: If it is out of range.
        """
        check_range("system.inference.width", self.width, 1)


class InferenceNet(nn.Module):
    """Value of the team from the central state and the distributions of its latents.

    ``pool`` combines the agents: ``concat`` concatenates their distributions, so the parameters fit
    one team size. ``mean`` and ``attn`` (attention with a query from the state) pool embeddings of
    own features and distribution. Dead and absent agents have no effect. With ``entities``, the
    rows of the state are embedded and averaged too, instead of flattened.
    """

    spec: Spec
    config: InferenceConfig
    entities: bool

    @nn.compact
    def __call__(
        self,
        obs: EntityObs,
        mu: Float[Array, "*batch N K"],
        log_sigma: Float[Array, "*batch N K"],
    ) -> Float[Array, "*batch"]:
        """Return the team's value in normalized units."""
        width = self.config.width
        state = self._entity_state(obs) if self.entities else state_parts(obs.state)
        latents = jnp.concatenate([mu, jnp.exp(log_sigma)], axis=-1)
        team = self._pool(state, obs, zero_masked(latents, obs.alive))
        x = MLP((width, width), layer_norm=True, name="layers")(*state, team)
        return value_head(x)

    def _entity_state(self, obs: EntityObs) -> tuple[Float[Array, "*batch F"], ...]:
        """Return global features and the mean embedding of each group."""
        pooled = [
            _masked_mean(self._embed(f"embed_{group.name}", group.rows), group.mask)
            for group in entity_rows(obs, self.spec)
        ]
        return obs.state.features, *pooled

    def _embed(self, name: str, *parts: Float[Array, "... F"]) -> Float[Array, "... W"]:
        return nn.relu(JointDense(self.config.width, name=name)(*parts))

    def _pool(
        self,
        state: tuple[Float[Array, "*batch F"], ...],
        obs: EntityObs,
        latents: Float[Array, "*batch N 2K"],
    ) -> Float[Array, "*batch P"]:
        """Return the agents' latents as one vector."""
        if self.config.pool == "concat":
            return latents.reshape(*latents.shape[:-2], -1)
        agents = self._embed("embed_latents", obs.own, latents)
        if self.config.pool == "mean":
            return _masked_mean(agents, obs.alive)
        width = self.config.width
        query = JointDense(width, scale=1.0, name="query")(*state)[..., None, :]
        key = nn.Dense(width, use_bias=False, kernel_init=orthogonal(), name="key")
        pooled = attend_to_entities(query, key(agents), agents, obs.alive, n_head=1)
        return pooled[..., 0, :]


def _masked_mean(
    x: Float[Array, "*batch E W"], mask: Bool[Array, "*batch E"]
) -> Float[Array, "*batch W"]:
    """Return the mean over unmasked rows, or zeros if there is none."""
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return zero_masked(x, mask).sum(-2) / count
