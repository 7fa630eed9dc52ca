"""Heads of policies and critics: action distributions with one interface, and values.

Discrete actions have a masked categorical, continuous ones a tanh-squashed Normal.
A distribution draws a *sample*, which is stored for learning, and maps it to the *action* that the
environment receives. For a categorical the two are equal. For a squashed Normal the action is the
tanh of the sample. The stored sample makes inverting the tanh unnecessary.
"""

from __future__ import annotations

from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Shaped

from jmarl.nn.initializers import orthogonal
from jmarl.types import Key, Params


def _distrax() -> Any:
    """Import distrax on first use, because it takes a third of the time of all imports."""
    import distrax

    return distrax


class ActionDist(Protocol):
    """Interface of action distributions; ``...`` is ``B N`` in acting, ``T B N`` in learning."""

    def sample(self, key: Key, /) -> Shaped[Array, "..."]:
        """Draw a sample, in the form that is stored."""
        ...

    def mode(self) -> Shaped[Array, "..."]:
        """Return the greedy sample."""
        ...

    def action(self, sample: Shaped[Array, "..."], /) -> Shaped[Array, "..."]:
        """Return the environment's action for a sample."""
        ...

    def log_prob(self, sample: Shaped[Array, "..."], /) -> Float[Array, "..."]:
        """Return the log-density of a sample's action, summed over an action vector."""
        ...

    def entropy(self) -> Float[Array, "..."]:
        """Return the entropy of the action."""
        ...


class MaskedCategorical(struct.PyTreeNode):
    """Categorical of float32 ``logits[..., A]``; those of unavailable actions are ``finfo.min``."""

    logits: Float[Array, "... A"]

    def sample(self, key: Key) -> Int[Array, "..."]:
        """Draw one action index per row."""
        # distrax also returns -1 for probabilities that are not finite, which takes six kernels
        return jax.random.categorical(key, jax.nn.log_softmax(self.logits))

    def mode(self) -> Int[Array, "..."]:
        """Return the most likely action, the first one in case of a tie."""
        return jnp.argmax(self.logits, axis=-1)

    def action(self, sample: Int[Array, "..."]) -> Int[Array, "..."]:
        """Return the index unchanged."""
        return sample

    def log_prob(self, sample: Int[Array, "..."]) -> Float[Array, "..."]:
        """Return the log-softmax at the index."""
        logp = jax.nn.log_softmax(self.logits)
        index = sample[..., None]
        return jnp.take_along_axis(logp, index, axis=-1, mode="clip")[..., 0]

    def entropy(self) -> Float[Array, "..."]:
        """Return the entropy in nats; unavailable actions add nothing."""
        logp = jax.nn.log_softmax(self.logits)
        p = jnp.exp(logp)
        terms = jnp.where(p > 0, p * logp, 0.0)
        return -jnp.sum(terms, axis=-1)


class TanhNormal(struct.PyTreeNode):
    """Independent Normals of ``mean[..., A]`` and ``std[..., A]``, squashed to (-1, 1) by tanh."""

    mean: Float[Array, "... A"]
    std: Float[Array, "... A"]

    def sample(self, key: Key) -> Float[Array, "... A"]:
        """Draw a vector before the tanh."""
        return _distrax().Normal(self.mean, self.std).sample(seed=key)

    def mode(self) -> Float[Array, "... A"]:
        """Return the mean before the tanh; its action is the median."""
        return self.mean

    def action(self, sample: Float[Array, "... A"]) -> Float[Array, "... A"]:
        """Return the tanh of the sample, in (-1, 1)."""
        return jnp.tanh(sample)

    def log_prob(self, sample: Float[Array, "... A"]) -> Float[Array, "..."]:
        """Return the log-density of the action, by the change of variables."""
        normal = _distrax().Normal(self.mean, self.std).log_prob(sample)
        return jnp.sum(normal - log_tanh_slope(sample), axis=-1)

    def entropy(self) -> Float[Array, "..."]:
        """Return the Normal's entropy plus the mean log-slope of the tanh.

        The mean log-slope has no closed form, so it is computed by Gauss-Hermite quadrature. Eight
        nodes need no random key, have no variance, and are within 0.02 of the true value for
        standard deviations up to 1.5.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(8)
        nodes = np.asarray(nodes, np.float32)
        weights = np.asarray(weights / weights.sum(), np.float32)
        points = self.mean[..., None] + self.std[..., None] * nodes  # [..., A, 8]
        slope = jnp.sum(log_tanh_slope(points) * weights, axis=-1)
        normal = _distrax().Normal(self.mean, self.std).entropy()
        return jnp.sum(normal + slope, axis=-1)


def log_tanh_slope(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``log(1 - tanh(x)^2)`` without cancellation: ``2 (log 2 - x - softplus(-2x))``."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))


def masked_categorical(
    logits: Float[Array, "... A"], avail: Bool[Array, "... A"]
) -> MaskedCategorical:
    """Build a categorical over the available actions.

    If no action is available, the distribution is uniform and its gradients are finite.
    """
    lowest = jnp.finfo(jnp.float32).min
    return MaskedCategorical(jnp.where(avail, logits.astype(jnp.float32), lowest))


def choose(
    dist: ActionDist, key: Key, explore: Float[Array, ""]
) -> tuple[Shaped[Array, "..."], Shaped[Array, "..."], Float[Array, "..."]]:
    """Choose actions: sampled if ``explore > 0``, else greedy.

    Args:
        dist: Action distribution of each agent.
        key: Random key.
        explore: Scalar exploration rate.

    Returns:
        Action, sample and log-probability of each agent.
    """
    sample = jnp.where(explore > 0, dist.sample(key), dist.mode())
    return dist.action(sample), sample, dist.log_prob(sample)


class ActionHead(nn.Module):
    """Map from a network's output ``[..., A]`` to an action distribution.

    Discrete actions: the output is the logits. Continuous actions: the output is the mean before
    the tanh. One log standard deviation per component is a parameter that does not depend on the
    observation; it starts at ``log(init_std)``.
    """

    discrete: bool
    init_std: float = 0.6

    @nn.compact
    def __call__(
        self, out: Float[Array, "... A"], avail: Bool[Array, "... A"]
    ) -> ActionDist:
        """Return the distribution; continuous actions ignore ``avail``."""
        if self.discrete:
            return masked_categorical(out, avail)
        start = nn.initializers.constant(float(np.log(self.init_std)))
        log_std = self.param("log_std", start, out.shape[-1:])
        std = jnp.exp(log_std)
        return TanhNormal(out, jnp.broadcast_to(std, out.shape))


def rescale_values(
    params: Params,
    old: tuple[Float[Array, ""], Float[Array, ""]],
    new: tuple[Float[Array, ""], Float[Array, ""]],
) -> Params:
    """Change the output layer of a critic so that its values in units of reward stay equal.

    PopArt (van Hasselt et al. 2016, arXiv:1602.07714), eq. 9. The output layer is the dense
    layer with one output inside a module named ``value``.

    Args:
        params: Parameters of all networks.
        old: Mean and standard deviation in whose units the critic returned values so far.
        new: Mean and standard deviation in whose units it returns values from now on.

    Returns:
        Parameters with another output layer.
    """
    (old_mean, old_std), (new_mean, new_std) = old, new

    def rescale(path: Any, x: Array) -> Array:
        *modules, name = (str(key.key) for key in path)
        if "value" not in modules or x.shape[-1] != 1:
            return x
        if name == "bias":
            x = x + (old_mean - new_mean) / old_std
        return x * (old_std / new_std)

    return jax.tree_util.tree_map_with_path(rescale, params)


def value_head(x: Float[Array, "... F"]) -> Float[Array, "..."]:
    """Apply the output layer of a critic; call it in a compact method."""
    layer = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")
    return layer(x)[..., 0]
