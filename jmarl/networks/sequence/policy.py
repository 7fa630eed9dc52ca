"""Sequence policies: agents choose one after another, each conditioned on the earlier actions.

The interface of MAT, MAM and Sable (Wen et al. 2022, "Multi-Agent Reinforcement Learning is a
Sequence Modeling Problem", arXiv:2205.14953, section 4). An encoder reads all observations and
returns a representation and a value for each agent. A decoder reads the actions so far and returns
the distribution of the next agent's. ``decode`` acts: one scan over agents with a cached state.
``teacher_forced`` prepares learning: one parallel pass. Contract: both give the same outputs for
the same actions.

The decoder may visit agents in any order. The encoder always reads them in their own order, because
a bidirectional scan needs one fixed order for its values.

Letters in shapes: T time steps (rows), B environments, N agents, A actions, E width of the
embedding, K width of a token, O width of a decoder output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jmarl.kernels.row_scan import row_scan
from jmarl.networks.heads import ActionDist, TanhNormal, masked_categorical
from jmarl.types import Key, Params, Spec


class SequenceCarry(NamedTuple):
    """Memory from one time step to the next; ``()`` for a part without memory."""

    enc: Any
    dec: Any


class SequencePolicy(NamedTuple):
    """A policy over the sequence of agents, as pure functions."""

    init: Callable[[Key], Params]
    """``init(key) -> params``"""
    carry: Callable[[int], SequenceCarry]
    """``carry(B) -> SequenceCarry``: the initial memory, each leaf with a leading B."""
    encode: Callable[..., tuple[Any, Float[Array, "T B N E"], Float[Array, "T B N"]]]
    """``encode(params, enc, obs[T, B, N], first[T, B])
    -> (enc, rep[T, B, N, E], value[T, B, N])``"""
    decode_context: Callable[[Params, Float[Array, "B N E"]], Any]
    """``decode_context(params, rep[B, N, E]) -> context``: all that the decoder computes of ``rep``
    only, in the order of decoding. Each leaf is ``[B, N, ...]``."""
    decode_start: Callable[[Params, Any, Bool[Array, "B"]], Any]
    """``decode_start(params, dec, first[B]) -> state``: the state before the first agent, with
    memory reset where ``first``."""
    decode_step: Callable[..., tuple[Any, Float[Array, "B O"]]]
    """``decode_step(params, state, token[B, K], context_i) -> (state, out[B, O])``"""
    decode_end: Callable[[Params, Any], Any]
    """``decode_end(params, state) -> dec``"""
    decode_parallel: Callable[..., Float[Array, "T B N O"]]
    """``decode_parallel(params, dec, tokens[T, B, N, K], rep[T, B, N, E], first[T, B])
    -> out[T, B, N, O]``"""


class ActionCodec(NamedTuple):
    """Conversions between decoder outputs, action samples and decoder tokens."""

    width: int
    """Width K of a token. Channel 0 is the start flag, which no sample sets."""
    distribution: Callable[[Array, Array], ActionDist]
    """``distribution(out[..., O], avail[..., A])``: the distribution of actions."""
    noise: Callable[[Key, tuple[int, ...]], Float[Array, "*batch A"]]
    """``noise(key, shape) -> [*shape, A]``: the noise of all agents in one draw."""
    choose: Callable[[Any, Array], Shaped[Array, "*batch"]]
    """``choose(distribution, noise) -> sample``: a sample, or the mode if the noise is zero."""
    token: Callable[[Array], Float[Array, "*batch K"]]
    """``token(sample) -> [..., K]``: the token that the next agent reads."""


def action_codec(spec: Spec) -> ActionCodec:
    """Build the codec of an environment's actions.

    Discrete: tokens are one-hot actions, and the argmax of masked logits plus Gumbel noise is a
    sample. Continuous: a sample is the vector before the tanh. Its token is the vector after the
    tanh, in acting and in learning, and the density is computed from the sample.

    Args:
        spec: Spec of the environment.

    Returns:
        The codec, with tokens of width ``spec.n_actions + 1``.
    """
    return _discrete_codec(spec) if spec.discrete else _continuous_codec(spec)


def _discrete_codec(spec: Spec) -> ActionCodec:
    width = spec.n_actions + 1

    def noise(key: Key, shape: tuple[int, ...]) -> Array:
        return _draw_flat(jax.random.gumbel, key, (*shape, spec.n_actions))

    def choose(dist: Any, noise: Array) -> Array:
        action = jnp.argmax(dist.logits + noise, axis=-1)
        return action.astype(jnp.int32)

    def token(action: Array) -> Array:
        return jax.nn.one_hot(action + 1, width)

    return ActionCodec(width, masked_categorical, noise, choose, token)


def _draw_flat(draw: Callable[..., Array], key: Key, shape: tuple[int, ...]) -> Array:
    # the values of a draw with axes, whose counters take two more kernels for large teams
    return draw(key, (math.prod(shape),)).reshape(shape)


def _continuous_codec(spec: Spec) -> ActionCodec:
    width = spec.n_actions + 1

    def distribution(out: Array, avail: Array) -> TanhNormal:
        mean, log_std = jnp.split(out, 2, axis=-1)
        return TanhNormal(mean, jnp.exp(log_std))

    def noise(key: Key, shape: tuple[int, ...]) -> Array:
        return _draw_flat(jax.random.normal, key, (*shape, spec.n_actions))

    def choose(dist: Any, noise: Array) -> Array:
        return dist.mean + dist.std * noise

    def token(sample: Array) -> Array:
        unpadded = [(0, 0)] * (sample.ndim - 1)
        return jnp.pad(jnp.tanh(sample), [*unpadded, (1, 0)])

    return ActionCodec(width, distribution, noise, choose, token)


def decode(
    policy: SequencePolicy,
    codec: ActionCodec,
    params: Params,
    before: tuple[Any, Bool[Array, " B"]],
    rep: Float[Array, "B N E"],
    avail: Bool[Array, "B N A"],
    noise: Float[Array, "B N A"],
) -> tuple[Shaped[Array, "B N *A"], Float[Array, "B N O"], Any]:
    """Choose the actions of all agents, as one scan over agents in the order of their axis.

    Args:
        policy: The sequence policy.
        codec: Codec of the environment's actions.
        params: Parameters of the policy.
        before: Memory of the decoder, and True where an episode starts.
        rep: Representations from the encoder.
        avail: Available actions.
        noise: Noise from ``codec.noise``; zero for greedy actions.

    Returns:
        The samples, the decoder's outputs and the new memory of the decoder.
    """

    def start(inputs: tuple[Any, Array]) -> tuple[Any, Array]:
        dec, first = inputs
        token = _start_token(first.shape, codec.width, rep.dtype)
        return policy.decode_start(params, dec, first), token

    def agent(
        carry: tuple[Any, Array], x: tuple[Any, Array, Array]
    ) -> tuple[tuple[Any, Array], tuple[Array, Array]]:
        state, token = carry
        context, avail, noise = x
        state, out = policy.decode_step(params, state, token, context)
        sample = codec.choose(codec.distribution(out, avail), noise)
        return (state, codec.token(sample)), (sample, out)

    by_agent = (policy.decode_context(params, rep), avail, noise)
    (state, _), (sample, out) = row_scan(start, agent, before, by_agent)
    return sample, out, policy.decode_end(params, state)


def teacher_forced(
    codec: ActionCodec, sample: Shaped[Array, "*batch N *A"], dtype: Any = jnp.float32
) -> Float[Array, "*batch N K"]:
    """Return the decoder's input tokens for known actions: the start token, then the actions.

    Args:
        codec: Codec of the environment's actions.
        sample: Samples of the agents, in the order in which they acted.
        dtype: Type of the tokens.

    Returns:
        Tokens; the one at position i is of the agent at position i - 1.
    """
    tokens = codec.token(sample).astype(dtype)
    start = _start_token(tokens.shape[:-2], codec.width, dtype)
    return jnp.concatenate([start[..., None, :], tokens[..., :-1, :]], axis=-2)


def sample_order(
    key: Key, shape: tuple[int, ...], explore: Float[Array, ""]
) -> Int[Array, "B N"]:
    """Sample an order of agents for each environment.

    Args:
        key: Random key.
        shape: Environments and agents, ``(B, N)``.
        explore: The order is the agents' own if this is 0, else uniformly random.

    Returns:
        Agent indices by position.
    """
    priority = jax.random.uniform(key, shape) * (explore > 0)
    return jnp.argsort(priority, axis=-1)


def arrange(
    x: Shaped[Array, "*batch N F"], order: Int[Array, "*batch N"] | None
) -> Shaped[Array, "*batch N F"]:
    """Permute agents into ``order``.

    Args:
        x: Values by agent.
        order: Agent indices by position; None leaves ``x`` as it is.

    Returns:
        Values by position: position i holds agent ``order[i]``.
    """
    if order is None:
        return x
    index = order.reshape(*order.shape, *(1,) * (x.ndim - order.ndim))
    return jnp.take_along_axis(x, index, axis=order.ndim - 1)


def restore(
    x: Shaped[Array, "*batch N F"], order: Int[Array, "*batch N"] | None
) -> Shaped[Array, "*batch N F"]:
    """Undo ``arrange``.

    Args:
        x: Values by position.
        order: Agent indices by position; None leaves ``x`` as it is.

    Returns:
        Values by agent: agent ``order[i]`` holds position i.
    """
    if order is None:
        return x
    return arrange(x, jnp.argsort(order, axis=-1))


def _start_token(batch: tuple[int, ...], width: int, dtype: Any) -> Array:
    return jax.nn.one_hot(jnp.zeros(batch, jnp.int32), width, dtype=dtype)
