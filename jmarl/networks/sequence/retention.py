"""Retention over agents and time, in chunks and one agent at a time: the token mixers of Sable.

Sable (Mahjoub et al. 2024, arXiv:2410.01706) after the retentive network (Sun et al. 2023,
arXiv:2307.08621). A head with keys k, values v and queries q keeps one matrix S for the team, which
decays once per time step t:

    S_t = kappa S_{t-1} + sum_i k_{t,i} v_{t,i}^T;     y_{t,i} = q_{t,i} S_t              (encoder)
    y_{t,i} = q_{t,i} (kappa S_{t-1} + sum_{j <= i} k_{t,j} v_{t,j}^T)                    (decoder)

S is zero at the start of an episode. Without memory, it is zero before every time step.

Differs from the published code:

* The mask between rows comes from counting the episodes of a chunk, not from a loop over them.
* Powers of the decay are used only for rows of one episode, with non-negative exponents.
* Large teams are processed row by row.
* The norm has one group for each head.

Letters in shapes: T time steps (rows), B environments, N agents, H heads, D width of a head, and
E = H D. In einsums, t and s are rows, i and j agents; (t, i) is a query and (s, j) a key.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.nn.norm import unit_rms


CHUNK_TOKENS = 64
"""Most tokens (rows x agents) that are compared pairwise. Larger teams are cut into chunks of this
many agents."""
_einsum = partial(jnp.einsum, precision="highest")
"""Product with float32 in every precision of a run.

Acting adds and reads states, learning compares pairs. Both are equal only if neither rounds its
inputs.
"""


class RetentionState(NamedTuple):
    """Memory of an encoder's retention."""

    matrix: Float[Array, "B H D D"]
    """The matrix S of every head."""
    steps: Int[Array, " B"]
    """Time steps of the episode so far."""


class _ChunkDecay(NamedTuple):
    """Decay factors of a chunk of T rows; zero across episodes."""

    within: Float[Array, "B H T T"]
    """From a row (last axis) to a row of the chunk."""
    before: Float[Array, "T B H"]
    """From the matrix before the chunk to a row."""
    after: Float[Array, "T B H"]
    """From a row to the matrix after the chunk."""
    kept: Float[Array, "B H"]
    """From the matrix before the chunk to the matrix after it."""


def decays(n_head: int, scale: float) -> Float[np.ndarray, " H"]:
    """Return ``scale (1 - 2^-x)`` with x from 5 to 9 over the heads.

    Multi-scale retention (Sun et al. 2023, section 2.2): heads have short to long memories.

    Args:
        n_head: Number of heads H.
        scale: Factor of all decays.

    Returns:
        The decay per time step of each head.
    """
    rate = np.exp(np.linspace(math.log(1 / 32), math.log(1 / 512), n_head))
    return scale * (1.0 - rate)


def retain(
    matrix: Float[Array, "B H D D"] | None,
    q: Float[Array, "T B N H D"],
    k: Float[Array, "T B N H D"],
    v: Float[Array, "T B N H D"],
    first: Bool[Array, "T B"],
    kappa: Float[np.ndarray, " H"],
    *,
    causal: bool,
) -> tuple[Float[Array, "B H D D"] | None, Float[Array, "T B N H D"]]:
    """Run retention over all rows.

    Teams of up to ``CHUNK_TOKENS`` agents are processed in chunks of rows, with all tokens of a
    chunk compared pairwise. Larger teams are processed row by row, at a cost linear in N.

    Args:
        matrix: S before row 0; None for a single row without memory.
        q: Queries.
        k: Keys.
        v: Values.
        first: True where an episode starts.
        kappa: Decay per time step of each head.
        causal: If True, an agent reads only itself and the agents before it in its own row, else
            all agents of that row. Of earlier rows it reads all agents.

    Returns:
        S after the last row, of no meaning without memory, and the outputs.
    """
    n_agents = q.shape[2]
    run = _by_rows if n_agents > CHUNK_TOKENS else _by_chunks
    return run(matrix, (q, k, v, first), kappa, causal)


def _by_chunks(
    matrix: Array | None, tokens: tuple, kappa: Float[np.ndarray, " H"], causal: bool
) -> tuple[Array | None, Array]:
    q, *_ = tokens
    length, _, n_agents = q.shape[:3]
    rows = _chunk_rows(length, n_agents)
    shape = (length // rows, rows)
    chunks = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), tokens)
    run = partial(_run_chunk, kappa=kappa, causal=causal)
    matrix, y = jax.lax.scan(run, matrix, chunks)
    return matrix, y.reshape(q.shape)


def _chunk_rows(length: int, n_agents: int) -> int:
    """Return the most rows that divide the length and have at most ``CHUNK_TOKENS`` tokens."""
    divisors = (rows for rows in range(1, length + 1) if length % rows == 0)
    return max(rows for rows in divisors if rows * n_agents <= CHUNK_TOKENS)


def _run_chunk(
    matrix: Array | None,
    chunk: tuple[Array, Array, Array, Array],
    *,
    kappa: Float[np.ndarray, " H"],
    causal: bool,
) -> tuple[Array | None, Array]:
    """Run one chunk ``[T, B, N, H, D]`` (Sun et al. 2023, chunkwise form, eq. 7)."""
    q, k, v, first = chunk
    rows, _, n_agents = q.shape[:3]
    decay = _chunk_decay(first, kappa)
    # [B, H, T, 1 or N, T, 1 or N]
    within = decay.within[:, :, :, None, :, None]
    if causal:
        within = jnp.where(_later_agents(rows, n_agents), 0.0, within)
    # [B, H, T, N, T, N]
    scores = _einsum("tbihd,sbjhd->bhtisj", q, k) * within
    # [T, B, N, H, D]
    inside = _einsum("bhtisj,sbjhd->tbihd", scores, v)
    if matrix is None:
        return None, inside
    outside = _einsum("tbihd,bhde->tbihe", q, matrix)
    outside = outside * decay.before[:, :, None, :, None]
    # [B, H, D, D]
    kept = decay.kept[..., None, None] * matrix
    matrix = kept + _einsum("sbjhd,sbjhe,sbh->bhde", k, v, decay.after)
    return matrix, inside + outside


def _later_agents(rows: int, n_agents: int) -> Bool[np.ndarray, "T N T N"]:
    """Return a mask of the pairs of tokens of one row with the key after the query."""
    own_row = np.eye(rows, dtype=bool)[:, None, :, None]
    not_later = np.tril(np.ones((n_agents, n_agents), bool))[None, :, None, :]
    return own_row & ~not_later


def _by_rows(
    matrix: Array | None, tokens: tuple, kappa: Float[np.ndarray, " H"], causal: bool
) -> tuple[Array | None, Array]:
    run = _run_causal_row if causal else _run_row
    if matrix is None:
        q, *_ = tokens
        _, batch, _, heads, width = q.shape
        matrix = jnp.zeros((batch, heads, width, width))

    def row(
        matrix: Array, row: tuple[Array, Array, Array, Array]
    ) -> tuple[Array, Array]:
        *tokens, first = row
        decay = jnp.where(first[:, None], 0.0, kappa)  # [B, H]
        return run(decay[..., None, None] * matrix, *tokens)

    return jax.lax.scan(row, matrix, tokens)


def _run_row(matrix: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Run one row ``[B, N, H, D]``, with all agents reading the matrix after it."""
    matrix = matrix + _einsum("bihd,bihe->bhde", k, v)
    return matrix, _einsum("bihd,bhde->bihe", q, matrix)


def _run_causal_row(matrix: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Run one row ``[B, N, H, D]``, causal over agents, in chunks of C = ``CHUNK_TOKENS`` agents.

    The last chunk is padded with zeros.
    """
    batch, n_agents, *head = q.shape
    chunks = -(-n_agents // CHUNK_TOKENS)
    padding = chunks * CHUNK_TOKENS - n_agents
    mask = np.tril(np.ones((CHUNK_TOKENS, CHUNK_TOKENS), bool))

    def split(x: Array) -> Array:
        """Reshape ``[B, N, H, D]`` to ``[chunks, B, C, H, D]``."""
        x = jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return x.reshape(batch, chunks, CHUNK_TOKENS, *head).swapaxes(0, 1)

    def chunk(matrix: Array, tokens: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = tokens
        scores = _einsum("bihd,bjhd->bhij", q, k)
        scores = jnp.where(mask, scores, 0.0)  # [B, H, C, C]
        inside = _einsum("bhij,bjhd->bihd", scores, v)
        y = inside + _einsum("bihd,bhde->bihe", q, matrix)  # [B, C, H, D]
        return matrix + _einsum("bjhd,bjhe->bhde", k, v), y

    matrix, y = jax.lax.scan(chunk, matrix, (split(q), split(k), split(v)))
    y = y.swapaxes(0, 1).reshape(batch, -1, *head)
    return matrix, y[:, :n_agents]


def _chunk_decay(
    first: Bool[Array, "T B"], kappa: Float[np.ndarray, " H"]
) -> _ChunkDecay:
    """Compute the decay factors of a chunk.

    Two rows are of one episode if the count of ``first`` up to them is the same.
    """
    length = first.shape[0]
    episode = jnp.cumsum(first, axis=0)  # [T, B]
    t = np.arange(length)
    age = t[:, None] - t[None, :]  # [T, T]
    same_episode = episode.T[:, :, None] == episode.T[:, None, :]  # [B, T, T]
    allowed = (age >= 0) & same_episode
    # Only non-negative powers: those of negative exponents overflow.
    power = kappa[:, None, None] ** np.maximum(age, 0)  # [H, T, T]
    within = jnp.where(allowed[:, None], power, 0.0)
    unbroken = (episode == 0)[..., None]  # [T, B, 1]
    before = jnp.where(unbroken, kappa ** (t + 1)[:, None, None], 0.0)
    last = (episode == episode[-1])[..., None]  # [T, B, 1]
    after = jnp.where(last, kappa ** (length - 1 - t)[:, None, None], 0.0)
    kept = jnp.where(unbroken[-1], kappa**length, 0.0)
    return _ChunkDecay(within, before, after, kept)


def count_steps(
    steps: Int[Array, " B"], first: Bool[Array, "T B"]
) -> tuple[Int[Array, " B"], Int[Array, "T B"]]:
    """Count the time steps of the episode before each row.

    Args:
        steps: Count before row 0, if row 0 continues an episode.
        first: True where an episode starts.

    Returns:
        The count before the row after the last, and before each row.
    """
    t = jnp.arange(first.shape[0])[:, None]
    start = jax.lax.cummax(jnp.where(first, t, -1), axis=0)  # -1 if before row 0
    counts = jnp.where(start >= 0, t - start, steps + t)
    return counts[-1] + 1, counts


def step_encoding(steps: Int[Array, "..."], width: int) -> Float[Array, "... F"]:
    """Return sines and cosines of a step number (Vaswani et al. 2017, section 3.5).

    Args:
        steps: Step numbers.
        width: Width F of the encoding.

    Returns:
        The encodings, sines first.
    """
    half = (width + 1) // 2
    rate = np.exp(-math.log(10_000.0) * np.arange(half) / half)
    angle = steps[..., None] * rate
    encoding = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return encoding[..., :width]


class Retention(nn.Module):
    """Heads of retention, normalized, gated by the stream that gives the keys, and projected."""

    embed_dim: int
    n_head: int
    causal: bool
    decay_scale: float
    memory: bool

    def setup(self) -> None:
        dense = partial(nn.Dense, self.embed_dim, use_bias=False)
        self.query = dense()
        self.key = dense()
        self.value = dense()
        self.gate = dense()
        self.out = dense()
        self.scale = self.param("scale", nn.initializers.ones, (self.embed_dim,))

    @property
    def kappa(self) -> Float[np.ndarray, " H"]:
        """Return the decay per time step of each head."""
        return decays(self.n_head, self.decay_scale).astype(np.float32)

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> Float[Array, "B H D D"] | tuple[()]:
        """Return the zero matrix; () without memory."""
        return self.zero_matrix(batch) if self.memory else ()

    @nn.nowrap
    def zero_matrix(self, batch: int) -> Float[Array, "B H D D"]:
        """Return the matrix before the first time step of an episode."""
        width = self.embed_dim // self.n_head
        return jnp.zeros((batch, self.n_head, width, width))

    def __call__(
        self,
        matrix: Any,
        query_input: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        """Run all rows; queries come from ``query_input``; keys, values and gate from ``x``."""
        q = self.context(query_input)
        k = self._split_heads(self.key(x))
        v = self._split_heads(self.value(x))
        run = partial(retain, kappa=self.kappa, causal=self.causal)
        if self.memory:
            matrix, y = run(matrix, q, k, v, first)
            return matrix, self._gate_and_project(y, x)
        # Rows are independent without memory: one row of T B environments.
        tokens = (q, k, v, first)
        tokens = jax.tree.map(lambda y: y.reshape(1, -1, *y.shape[2:]), tokens)
        _, y = run(None, *tokens)
        return matrix, self._gate_and_project(y.reshape(q.shape), x)

    def context(
        self, query_input: Float[Array, "*batch E"]
    ) -> Float[Array, "*batch H D"]:
        """Return the queries."""
        return self._split_heads(self.query(query_input))

    def start(self, matrix: Any, first: Bool[Array, " B"]) -> Float[Array, "B H D D"]:
        """Return the decayed matrix, which the first agent of a time step updates."""
        if not self.memory:
            return self.zero_matrix(len(first))
        decay = jnp.where(first[:, None], 0.0, self.kappa)  # [B, H]
        return decay[..., None, None] * matrix

    def step(
        self,
        matrix: Float[Array, "B H D D"],
        q: Float[Array, "B H D"],
        x: Float[Array, "B E"],
    ) -> tuple[Float[Array, "B H D D"], Float[Array, "B E"]]:
        """Add the next agent's key and value to the matrix, then read it with its query."""
        k = self._split_heads(self.key(x))
        v = self._split_heads(self.value(x))
        matrix = matrix + k[..., :, None] * v[..., None, :]
        y = _einsum("bhd,bhde->bhe", q, matrix)
        return matrix, self._gate_and_project(y, x)

    def end(self, matrix: Any) -> Any:
        """Return the matrix after the last agent; () without memory."""
        return matrix if self.memory else ()

    def _split_heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_head, -1)

    def _gate_and_project(self, y: Array, x: Array) -> Array:
        y = unit_rms(y).reshape(x.shape) * self.scale
        return self.out(nn.silu(self.gate(x)) * y)


class SwiGLU(nn.Module):
    """``(silu(x W) * x V) U`` (Shazeer 2020, arXiv:2002.05202), all of one width."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
        dense = partial(nn.Dense, self.width, use_bias=False)
        gate = dense()(x)
        value = dense()(x)
        return dense()(nn.silu(gate) * value)


class TimedRetention(nn.Module):
    """Retention of an encoder; with memory, it also reads an encoding of the episode's step number.

    It is equivariant to the order of agents. An agent that joins during an episode resets nothing,
    because the memory is the team's.
    """

    embed_dim: int
    n_head: int
    decay_scale: float
    memory: bool

    @nn.nowrap
    def _retention(self, **options: Any) -> Retention:
        return Retention(
            self.embed_dim,
            self.n_head,
            causal=False,
            decay_scale=self.decay_scale,
            memory=self.memory,
            **options,
        )

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> RetentionState | tuple[()]:
        """Return the zero matrix and step count; () without memory."""
        if not self.memory:
            return ()
        matrix = self._retention(parent=None).zero_matrix(batch)
        return RetentionState(matrix, jnp.zeros(batch, jnp.int32))

    @nn.compact
    def __call__(
        self,
        carry: RetentionState | tuple[()],
        query_input: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[RetentionState | tuple[()], Float[Array, "T B N E"]]:
        retention = self._retention(name="retention")
        if not isinstance(carry, RetentionState):
            return retention((), query_input, x, first)
        steps, counts = count_steps(carry.steps, first)
        encoding = step_encoding(counts, self.embed_dim)[..., None, :]  # [T, B, 1, E]
        query_input = query_input + encoding
        matrix, mixed = retention(carry.matrix, query_input, x + encoding, first)
        return RetentionState(matrix, steps), mixed
