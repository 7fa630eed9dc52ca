"""Sequence policies: agents act one after the other, each seeing what those before it chose.

The seam of MAT, MAM and Sable (Wen et al. 2022, "Multi-Agent Reinforcement Learning is a
Sequence Modeling Problem", section 4): an encoder reads all observations and gives a
representation and a value for each agent; a decoder reads the actions so far and gives the
next agent's. ``decode`` acts, as one scan over agents with a cached state; ``teacher_forced``
learns, as one parallel pass. Contract: both give the same outputs for the same actions.

The decoder may visit agents in any order; the encoder always sees them in their own, because
a bidirectional scan needs one fixed order for its values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jmarl.networks.heads import ActionDist, TanhNormal, masked_categorical
from jmarl.types import Key, Params, Spec


class SequenceCarry(NamedTuple):
    """Memory from one environment step to the next; ``()`` where a part has none."""

    enc: Any
    dec: Any


class SequencePolicy(NamedTuple):
    """A policy over the sequence of agents, as pure functions.

    ``init(key) -> params``
    ``carry(B) -> SequenceCarry``, each leaf with a leading B
    ``encode(params, enc, obs[T, B, N], first[T, B]) -> (enc, rep[T, B, N, E], value[T, B, N])``
    ``decode_context(params, rep[B, N, E]) -> context``: all that the decoder computes of ``rep``
    alone, in the order of decoding, each leaf ``[B, N, ...]``
    ``decode_start(params, dec, first[B]) -> state``: the state before the first agent, where
    memory is reset
    ``decode_step(params, state, token[B, K], context_i) -> (state, out[B, O])``
    ``decode_end(params, state) -> dec``
    ``decode_parallel(params, dec, tokens[T, B, N, K], rep[T, B, N, E], first[T, B]) -> out[T, B, N, O]``
    """

    init: Callable[[Key], Params]
    carry: Callable[[int], SequenceCarry]
    encode: Callable[..., tuple[Any, Float[Array, "T B N E"], Float[Array, "T B N"]]]
    decode_context: Callable[[Params, Float[Array, "B N E"]], Any]
    decode_start: Callable[[Params, Any, Bool[Array, "B"]], Any]
    decode_step: Callable[..., tuple[Any, Float[Array, "B O"]]]
    decode_end: Callable[[Params, Any], Any]
    decode_parallel: Callable[..., Float[Array, "T B N O"]]


class ActionCodec(NamedTuple):
    """What the decoder says and hears.

    ``distribution(out[..., O], avail[..., A])``: from the decoder's output to a distribution
    ``noise(key, shape) -> [*shape, A]``: one draw for all agents
    ``choose(distribution, noise) -> sample``: a sample, and the mode where the noise is zero
    ``token(sample) -> [..., K]`` of width K: what the next agent hears. Channel 0 is the start
    flag, which no sample sets.
    """

    width: int
    distribution: Callable[[Array, Array], ActionDist]
    noise: Callable[[Key, tuple[int, ...]], Float[Array, "*batch A"]]
    choose: Callable[[Any, Array], Shaped[Array, "*batch"]]
    token: Callable[[Array], Float[Array, "*batch K"]]


def action_codec(spec: Spec) -> ActionCodec:
    """One-hot actions, or tanh-squashed vectors, behind a start flag.

    Discrete: the argmax of masked logits plus Gumbel noise is a sample. Continuous: a sample is
    the vector before squashing; the next agent hears its tanh, in acting and in learning alike,
    while the density is taken at the sample itself.
    """
    width = spec.n_actions + 1
    if spec.discrete:
        return ActionCodec(
            width=width,
            distribution=masked_categorical,
            noise=lambda key, shape: jax.random.gumbel(key, (*shape, spec.n_actions)),
            choose=lambda dist, noise: jnp.argmax(dist.logits + noise, axis=-1).astype(
                jnp.int32
            ),
            token=lambda action: jax.nn.one_hot(action + 1, width),
        )

    def distribution(out: Array, avail: Array) -> TanhNormal:
        mean, log_std = jnp.split(out, 2, axis=-1)
        return TanhNormal(mean, jnp.exp(log_std))

    return ActionCodec(
        width=width,
        distribution=distribution,
        noise=lambda key, shape: jax.random.normal(key, (*shape, spec.n_actions)),
        choose=lambda dist, noise: dist.mean + dist.std * noise,
        token=lambda sample: jnp.pad(
            jnp.tanh(sample), [(0, 0)] * (sample.ndim - 1) + [(1, 0)]
        ),
    )


def decode(
    policy: SequencePolicy,
    codec: ActionCodec,
    params: Params,
    state: Any,
    rep: Float[Array, "B N E"],
    avail: Bool[Array, "B N A"],
    noise: Float[Array, "B N A"],
) -> tuple[Shaped[Array, "B N *A"], Float[Array, "B N O"], Any]:
    """Act: one joint choice as a scan over agents in the order in which they stand.

    ``state`` comes from ``policy.decode_start``. Returns the samples, the decoder's outputs
    and the state after the last agent.
    """

    def agent(
        carry: tuple[Any, Array], x: tuple[Any, Array, Array]
    ) -> tuple[tuple[Any, Array], tuple[Array, Array]]:
        context, avail_i, noise_i = x
        state, out = policy.decode_step(params, *carry, context)
        sample = codec.choose(codec.distribution(out, avail_i), noise_i)
        return (state, codec.token(sample)), (sample, out)

    by_agent = jax.tree.map(_swap, (policy.decode_context(params, rep), avail, noise))
    start = _start_token(rep.shape[:1], codec.width, rep.dtype)
    (state, _), (sample, out) = jax.lax.scan(agent, (state, start), by_agent)
    return _swap(sample), _swap(out), state


def teacher_forced(
    codec: ActionCodec, sample: Shaped[Array, "*batch N *A"], dtype: Any = jnp.float32
) -> Float[Array, "*batch N K"]:
    """Learn: the tokens that the decoder reads when each agent hears the one before it.

    Agents stand in the order in which they acted; the first hears the start token.
    """
    heard = codec.token(sample).astype(dtype)
    start = _start_token(heard.shape[:-2], codec.width, dtype)
    return jnp.concatenate([start[..., None, :], heard[..., :-1, :]], axis=-2)


def sample_order(
    key: Key, shape: tuple[int, ...], explore: Float[Array, ""]
) -> Int[Array, "B N"]:
    """An order of agents for each environment: uniformly random, but the agents' own when greedy."""
    return jnp.argsort(jax.random.uniform(key, shape) * (explore > 0), axis=-1)


def arrange(
    x: Shaped[Array, "*batch N F"], order: Int[Array, "*batch N"] | None
) -> Shaped[Array, "*batch N F"]:
    """Put agents into ``order``: position i of the result is agent ``order[i]``. None leaves them."""
    if order is None:
        return x
    index = order.reshape(*order.shape, *(1,) * (x.ndim - order.ndim))
    return jnp.take_along_axis(x, index, axis=order.ndim - 1)


def restore(
    x: Shaped[Array, "*batch N F"], order: Int[Array, "*batch N"] | None
) -> Shaped[Array, "*batch N F"]:
    """Undo ``arrange``: agent ``order[i]`` of the result is position i."""
    return arrange(x, None if order is None else jnp.argsort(order, axis=-1))


def _start_token(batch: tuple[int, ...], width: int, dtype: Any) -> Array:
    return jnp.zeros((*batch, width), dtype).at[..., 0].set(1.0)


def _swap(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1)
