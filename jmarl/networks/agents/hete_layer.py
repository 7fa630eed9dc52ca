"""Heterogeneous layer: a linear layer for each agent, computed from the agent's latent.

    y_i = W_i x_i + b_i,    W_i = D_0 + sum_k l_ik D_k,    b_i = d_0 + sum_k l_ik d_k

SHPPO (Guo et al. 2024, arXiv:2404.03869) decodes the weights of this layer from the latent. The
decoders are affine, so no W_i is ever formed. One product ``x @ [D_1 | .. | D_K | D_0]`` is
contracted with ``[l, 1]``. Each agent stores K + 1 vectors in each row instead of a matrix.

All D_k have an orthogonal initialization. That of D_1 to D_K has the small gain ``LATENT_GAIN``, so
that all agents start with nearly the same layer. Without latents, the layer is D_0 and d_0 only.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.heads import ActionDist, ActionHead
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import product
from jmarl.types import Carry, EntityObs, Key


LATENT_GAIN = 0.02
"""Initial gain of the part of the weights that depends on the latent."""

LatentFn = Callable[[Float[Array, "T B N H"]], Float[Array, "T B N K"]]
"""Function from the features of all rows to the latents of all rows."""


def _init_decoders(key: Key, shape: tuple[int, int, int]) -> Float[Array, "H D H"]:
    """Return the kernels of the latent's components, followed by D_0."""
    width, count, _ = shape
    gains = [LATENT_GAIN] * (count - 1) + [1.0]
    kernels = [
        orthogonal(gain)(decoder_key, (width, width))
        for gain, decoder_key in zip(gains, jax.random.split(key, count), strict=True)
    ]
    return jnp.stack(kernels, axis=1)


class HeteLayer(nn.Module):
    """Linear layer of constant width with weights that are linear in the latent."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch_slots H"], latent: Float[Array, "*batch K"]
    ) -> Float[Array, "*batch_slots H"]:
        """Return ``W_i x + b_i``.

        Args:
            x: Input ``[T, B, N, H]``, or ``[T, B, N, slots, H]`` with one layer for all slots.
            latent: Latents ``[T, B, N, K]``; K may be 0.
        """
        width, count = x.shape[-1], latent.shape[-1] + 1
        kernel = self.param("kernel", _init_decoders, (width, count, width))
        bias = self.param("bias", nn.initializers.zeros, (count, width))
        factors = jnp.concatenate(
            [latent, jnp.ones_like(x, shape=(*latent.shape[:-1], 1))], -1
        )
        slots = (1,) * (x.ndim - latent.ndim)
        factors = factors.reshape(*latent.shape[:-1], *slots, count, 1)
        parts = product(x, kernel.reshape(width, -1))
        parts = parts.reshape(*x.shape[:-1], count, width) + bias  # [..., K+1, H]
        return (factors * parts).sum(-2)


class HetePolicy(nn.Module):
    """Action distribution from any agent network with a ``HeteLayer`` before its action heads."""

    net: nn.Module
    discrete: bool

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of the network."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        obs: EntityObs,
        first: Bool[Array, "T B"],
        latent_of: LatentFn | None = None,
    ) -> tuple[Carry, ActionDist, Float[Array, "T B N H"]]:
        """Return the next memory, action distributions, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
            latent_of: Function of the features that returns the latents. None: no latents, so all
                agents have the same layer.
        """
        layer = HeteLayer(name="hete")

        def between(features: jax.Array, x: jax.Array) -> jax.Array:
            latent = latent_of(features) if latent_of else features[..., :0]
            return layer(x, latent)

        carry, out, features = self.net(carry, obs, first, between)
        return carry, ActionHead(self.discrete, name="head")(out, obs.avail), features
