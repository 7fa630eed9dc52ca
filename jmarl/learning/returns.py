"""The one return of jmarl: GAE, TD(lambda) and the lambda-return of replay-free Q-learning."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


def align(
    flag: Shaped[Array, "..."], like: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """Append axes of length one to ``flag`` (``[T, B]``) until it broadcasts against ``like`` (``[T, B, N]``)."""
    return flag.reshape(flag.shape + (1,) * (like.ndim - flag.ndim))


def lambda_return(
    reward: Float[Array, "T ..."],
    terminated: Bool[Array, "T ..."],
    valid: Bool[Array, "T+1 ..."],
    value: Float[Array, "T+1 ..."],
    *,
    gamma: float,
    lam: float,
) -> Float[Array, "T ..."]:
    """Lambda-returns of T rows; flags may lack trailing axes of ``reward`` (the agents').

    ``G_t = r_t + gamma (1 - terminated_t) ((1 - lam) V_{t+1} + lam G_{t+1})`` on a valid row and
    ``G_t = V_t`` on one that is not (the observation that ends an episode, whose action is
    ignored). So a time limit bootstraps from the value of the true final observation, a
    termination from nothing, and no return crosses an episode's end; neither ``truncated`` nor
    ``first`` is needed. The generalized advantage estimate is ``G - V``.

    Sutton and Barto, Reinforcement Learning, 2nd ed., eq. 12.20; Schulman et al. 2016
    (arXiv:1506.02438), eq. 16. Differs from both: rows between episodes.
    """
    chex.assert_equal_shape([reward, value[1:]])
    chex.assert_equal_shape([terminated, valid[1:]])
    discount = gamma * (1.0 - align(terminated, reward).astype(reward.dtype))
    live = align(valid[:-1], reward)

    def back(later, row):
        r, disc, alive, v, v_next = row
        now = jnp.where(alive, r + disc * ((1.0 - lam) * v_next + lam * later), v)
        return now, now

    rows = (reward, discount, live, value[:-1], value[1:])
    return jax.lax.scan(back, value[-1], rows, reverse=True)[1]
