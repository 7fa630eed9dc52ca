"""Retention over agents and environment steps, in pieces and one agent at a time: the mixers of Sable.

Sable (Mahjoub et al. 2024, arXiv:2410.01706) after the retentive network (Sun et al. 2023, arXiv:2307.08621). A head
with keys k, values v and queries q keeps one matrix S of the team, which decays once an environment step t:

    S_t = kappa S_{t-1} + sum_i k_{t,i} v_{t,i}^T;     y_{t,i} = q_{t,i} S_t              (encoder)
    y_{t,i} = q_{t,i} (kappa S_{t-1} + sum_{j <= i} k_{t,j} v_{t,j}^T)                    (decoder)

with S zero where an episode begins. Without memory S is zero before every step. Differs from the published code:
which rows see each other follows from counting the episodes of a chunk, not from a loop over them; powers of the decay
are taken only where rows see each other; large teams go row by row; the norm has one group for each head.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.nn.norm import unit_rms


CHUNK_TOKENS = 64
"""Most tokens (environment steps x agents) that are compared all with all; a larger team goes in pieces of as many."""


class RetentionState(NamedTuple):
    """The matrix of every head, and the environment steps of the episode so far."""

    matrix: Float[Array, "B H D D"]
    steps: Int[Array, " B"]


def decays(n_head: int, scale: float) -> Float[np.ndarray, " H"]:
    """``scale (1 - 2^-x)`` with x from 5 to 9 over the heads: memories from short to long."""
    return scale * (
        1.0 - np.exp(np.linspace(math.log(1 / 32), math.log(1 / 512), n_head))
    )


def retain(
    matrix: Float[Array, "B H D D"],
    q: Float[Array, "T B N H D"],
    k: Float[Array, "T B N H D"],
    v: Float[Array, "T B N H D"],
    first: Bool[Array, "T B"],
    kappa: Float[np.ndarray, " H"],
    *,
    causal: bool,
) -> tuple[Float[Array, "B H D D"], Float[Array, "T B N H D"]]:
    """All T rows; returns the matrix after them and the outputs.

    ``causal``: an agent sees itself and the agents before it of its own row, else all of them. Small teams go by
    chunks of rows, whose tokens are all compared with each other; a team larger than a chunk goes row by row, at a
    cost that is linear in N.
    """
    by = _by_rows if q.shape[2] > CHUNK_TOKENS else _by_chunks
    return by(matrix, (q, k, v, first), kappa, causal)


def _by_chunks(
    matrix: Array, tokens: tuple, kappa: Float[np.ndarray, " H"], causal: bool
) -> tuple[Array, Array]:
    length, _, agents = tokens[0].shape[:3]
    rows = max(
        n
        for n in range(1, length + 1)
        if length % n == 0 and n * agents <= CHUNK_TOKENS
    )
    chunks = jax.tree.map(
        lambda x: x.reshape(length // rows, rows, *x.shape[1:]), tokens
    )

    def chunk(
        matrix: Array, chunk: tuple[Array, Array, Array, Array]
    ) -> tuple[Array, Array]:
        q, k, v, first = chunk
        within, before, after, kept = _weights(first, kappa)
        if causal:
            own_row = np.eye(rows, dtype=bool)[:, None, :, None]
            hears = np.tril(np.ones((agents, agents), bool))[None, :, None, :]
            within = jnp.where(own_row & ~hears, 0.0, within[:, :, :, None, :, None])
        else:
            within = within[:, :, :, None, :, None]
        scores = jnp.einsum("tbihd,sbjhd->bhtisj", q, k) * within
        inside = jnp.einsum("bhtisj,sbjhd->tbihd", scores, v)
        outside = (
            jnp.einsum("tbihd,bhde->tbihe", q, matrix) * before[:, :, None, :, None]
        )
        matrix = kept[..., None, None] * matrix + jnp.einsum(
            "sbjhd,sbjhe,sbh->bhde", k, v, after
        )
        return matrix, inside + outside

    matrix, y = jax.lax.scan(chunk, matrix, chunks)
    return matrix, y.reshape(tokens[0].shape)


def _by_rows(
    matrix: Array, tokens: tuple, kappa: Float[np.ndarray, " H"], causal: bool
) -> tuple[Array, Array]:
    def row(
        matrix: Array, row: tuple[Array, Array, Array, Array]
    ) -> tuple[Array, Array]:
        *said, first = row
        heard = jnp.where(first[:, None], 0.0, kappa)[..., None, None] * matrix
        return (_hear_earlier if causal else _hear_all)(heard, *said)

    return jax.lax.scan(row, matrix, tokens)


def _hear_all(matrix: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """One row ``[B, N, H, D]``: the matrix after it is what everyone asks."""
    matrix = matrix + jnp.einsum("bihd,bihe->bhde", k, v)
    return matrix, jnp.einsum("bihd,bhde->bihe", q, matrix)


def _hear_earlier(matrix: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """One row ``[B, N, H, D]``, causal over agents, by pieces of them; the last piece is filled up with silence."""
    batch, agents, *head = q.shape
    pieces = -(-agents // CHUNK_TOKENS)
    hears = np.tril(np.ones(2 * (CHUNK_TOKENS,), bool))

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, pieces * CHUNK_TOKENS - agents), (0, 0), (0, 0)))
        return x.reshape(batch, pieces, CHUNK_TOKENS, *head).swapaxes(0, 1)

    def piece(matrix: Array, said: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = said
        scores = jnp.where(hears, jnp.einsum("bihd,bjhd->bhij", q, k), 0.0)
        y = jnp.einsum("bhij,bjhd->bihd", scores, v) + jnp.einsum(
            "bihd,bhde->bihe", q, matrix
        )
        return matrix + jnp.einsum("bjhd,bjhe->bhde", k, v), y

    matrix, y = jax.lax.scan(piece, matrix, (cut(q), cut(k), cut(v)))
    return matrix, y.swapaxes(0, 1).reshape(batch, -1, *head)[:, :agents]


def _weights(
    first: Bool[Array, "T B"], kappa: Float[np.ndarray, " H"]
) -> tuple[
    Float[Array, "B H T T"],
    Float[Array, "T B H"],
    Float[Array, "T B H"],
    Float[Array, "B H"],
]:
    """Weights of a row for another row, of the matrix before for a row, of a row for the matrix after, of the matrix.

    Rows see each other in one episode only, whose number in the chunk is the count of ``first`` up to them.
    """
    length = first.shape[0]
    episode = jnp.cumsum(first, axis=0)
    t = np.arange(length)
    ago = t[:, None] - t[None, :]
    sees = (ago >= 0) & (episode.T[:, :, None] == episode.T[:, None, :])
    # powers of kappa only where rows see each other: of negative exponents they overflow
    power = kappa[:, None, None] ** np.maximum(ago, 0)
    within = jnp.where(sees[:, None], power, 0.0)
    unbroken = (episode == 0)[..., None]
    before = jnp.where(unbroken, kappa ** (t + 1)[:, None, None], 0.0)
    last = (episode == episode[-1])[..., None]
    after = jnp.where(last, kappa ** (length - 1 - t)[:, None, None], 0.0)
    return within, before, after, jnp.where(unbroken[-1], kappa**length, 0.0)


def count_steps(
    steps: Int[Array, " B"], first: Bool[Array, "T B"]
) -> tuple[Int[Array, " B"], Int[Array, "T B"]]:
    """Environment steps of the episode before each row, and before the row after the last."""
    t = jnp.arange(first.shape[0])[:, None]
    began = jax.lax.cummax(jnp.where(first, t, -1), axis=0)
    counted = jnp.where(began >= 0, t - began, steps + t)
    return counted[-1] + 1, counted


def step_encoding(steps: Int[Array, "..."], width: int) -> Float[Array, "... F"]:
    """Sines and cosines of a step number (Vaswani et al. 2017, section 3.5)."""
    rate = np.exp(
        -math.log(10_000.0) * np.arange((width + 1) // 2) / ((width + 1) // 2)
    )
    angle = steps[..., None] * rate
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[..., :width]


class Retention(nn.Module):
    """Heads of retention, normalized, gated by the stream that gives the keys, and projected."""

    embed_dim: int
    n_head: int
    causal: bool
    decay_scale: float
    memory: bool

    def setup(self) -> None:
        """Five projections and a scale, no biases."""
        self.query, self.key, self.value, self.gate, self.out = (
            nn.Dense(self.embed_dim, use_bias=False) for _ in range(5)
        )
        self.scale = self.param("scale", nn.initializers.ones, (self.embed_dim,))

    @property
    def kappa(self) -> Float[np.ndarray, " H"]:
        """The decay of each head."""
        return decays(self.n_head, self.decay_scale).astype(np.float32)

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> Float[Array, "B H D D"] | tuple[()]:
        """No step seen, or nothing."""
        return self.zeros(batch) if self.memory else ()

    @nn.nowrap
    def zeros(self, batch: int) -> Float[Array, "B H D D"]:
        """The matrix of no step seen."""
        width = self.embed_dim // self.n_head
        return jnp.zeros((batch, self.n_head, width, width))

    def __call__(
        self,
        matrix: Any,
        asking: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        """All rows and agents; queries from ``asking``, keys, values and gate from ``x``."""
        q, k, v = (
            self.context(asking),
            self._split(self.key(x)),
            self._split(self.value(x)),
        )
        if self.memory:
            matrix, y = retain(matrix, q, k, v, first, self.kappa, causal=self.causal)
            return matrix, self._close(y, x)
        # rows have nothing to do with each other: one row of many environments
        q1, k1, v1, first = jax.tree.map(
            lambda y: y.reshape(1, -1, *y.shape[2:]), (q, k, v, first)
        )
        _, y = retain(
            self.zeros(first.size), q1, k1, v1, first, self.kappa, causal=self.causal
        )
        return matrix, self._close(y.reshape(q.shape), x)

    def context(self, asking: Float[Array, "*batch E"]) -> Float[Array, "*batch H D"]:
        """The queries."""
        return self._split(self.query(asking))

    def start(self, matrix: Any, first: Bool[Array, " B"]) -> Float[Array, "B H D D"]:
        """The matrix before the first agent of a step."""
        if not self.memory:
            return self.zeros(len(first))
        return jnp.where(first[:, None], 0.0, self.kappa)[..., None, None] * matrix

    def step(
        self,
        matrix: Float[Array, "B H D D"],
        q: Float[Array, "B H D"],
        x: Float[Array, "B E"],
    ) -> tuple[Float[Array, "B H D D"], Float[Array, "B E"]]:
        """The next agent adds what it says and hears all that was said."""
        k, v = self._split(self.key(x)), self._split(self.value(x))
        matrix = matrix + k[..., :, None] * v[..., None, :]
        return matrix, self._close(jnp.einsum("bhd,bhde->bhe", q, matrix), x)

    def end(self, matrix: Any) -> Any:
        """The matrix after the last agent, or nothing."""
        return matrix if self.memory else ()

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_head, -1)

    def _close(self, y: Array, x: Array) -> Array:
        y = unit_rms(y).reshape(x.shape) * self.scale
        return self.out(nn.silu(self.gate(x)) * y)


class SwiGLU(nn.Module):
    """``(silu(x W) * x V) U`` (Shazeer 2020, arXiv:2002.05202), all of one width."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
        """Each agent on its own."""
        gate, value = (nn.Dense(self.width, use_bias=False)(x) for _ in range(2))
        return nn.Dense(self.width, use_bias=False)(nn.silu(gate) * value)


class TimedRetention(nn.Module):
    """Retention of an encoder, which with memory also reads an encoding of the step number of the episode.

    Equivariant to the order of agents. An agent that joins in mid-episode resets nothing: the memory is the team's.
    """

    embed_dim: int
    n_head: int
    decay_scale: float
    memory: bool

    @nn.nowrap
    def _retention(self, **where: Any) -> Retention:
        return Retention(
            self.embed_dim, self.n_head, False, self.decay_scale, self.memory, **where
        )

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> RetentionState | tuple[()]:
        """No step seen, or nothing."""
        if not self.memory:
            return ()
        return RetentionState(
            self._retention(parent=None).zeros(batch), jnp.zeros(batch, jnp.int32)
        )

    @nn.compact
    def __call__(
        self,
        carry: RetentionState | tuple[()],
        asking: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[RetentionState | tuple[()], Float[Array, "T B N E"]]:
        """All rows and agents."""
        retention = self._retention(name="retention")
        if not isinstance(carry, RetentionState):
            return retention((), asking, x, first)
        steps, count = count_steps(carry.steps, first)
        told = step_encoding(count, self.embed_dim)[..., None, :]
        matrix, mixed = retention(carry.matrix, asking + told, x + told, first)
        return RetentionState(matrix, steps), mixed
