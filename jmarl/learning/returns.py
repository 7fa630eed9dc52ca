"""The lambda-return, which serves GAE, TD(lambda) and Q-learning without replay.

The PPO kit computes GAE as this return minus the values
(``systems.kits.ppo.advantages_and_targets``).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jmarl.platforms import short_loop


UNROLLED = 128
"""Time steps that become straight-line code on an accelerator, which XLA fuses into few kernels."""


def align(
    flag: Shaped[Array, "..."], like: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """Append axes of length one, so that an array broadcasts against another one.

    Args:
        flag: Array such as ``[T, B]``.
        like: Array whose leading axes are those of ``flag``, such as ``[T, B, N]``.

    Returns:
        View of ``flag`` with as many axes as ``like``, such as ``[T, B, 1]``.
    """
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
    """Compute lambda-returns of T rows.

        G_t = r_t + gamma (1 - terminated_t) ((1 - lam) V_{t+1} + lam G_{t+1})    on a valid row
        G_t = V_t                                                                 on any other row

    A row that is not valid holds the observation that ends an episode. Its action is ignored.
    A time limit therefore bootstraps from the value of the true final observation. A
    termination does not bootstrap. No return crosses the end of an episode, so neither
    ``truncated`` nor ``first`` is needed. The generalized advantage estimate is ``G - V``.

    Sutton and Barto, Reinforcement Learning, 2nd ed., eq. 12.20; Schulman et al. 2016
    (arXiv:1506.02438), eq. 16.

    Differs from both: there are rows between episodes.

    Args:
        reward: Rewards ``[T, ...]``.
        terminated: True where the action of a row terminated the episode ``[T, ...]``.
        valid: True where the action of a row counts ``[T + 1, ...]``.
        value: Values of the observations ``[T + 1, ...]``.
        gamma: Discount per row.
        lam: Trace parameter lambda.

    Returns:
        Returns ``[T, ...]`` with the shape of ``reward``. The flags may lack its trailing axes,
        such as that of the agents.
    """
    chex.assert_equal_shape([reward, value[1:]])
    chex.assert_equal_shape([terminated, valid[1:]])
    discount = gamma * (1.0 - align(terminated, reward).astype(reward.dtype))
    counts = align(valid[:-1], reward)

    def step(next_return, row):
        r, d, valid_row, v, v_next = row
        bootstrap = (1.0 - lam) * v_next + lam * next_return
        result = jnp.where(valid_row, r + d * bootstrap, v)
        return result, result

    rows = (reward, discount, counts, value[:-1], value[1:])
    unroll = min(len(reward), UNROLLED) if short_loop() else 1
    return jax.lax.scan(step, value[-1], rows, reverse=True, unroll=unroll)[1]
