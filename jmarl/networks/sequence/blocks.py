"""Post-norm blocks of MAT, MAM and Sable around token mixers.

A token mixer exchanges information along the sequence of agents. ``TokenMixer`` is its interface in
an encoder. A decoder needs a ``DecoderTokenMixer``, which is causal and runs one agent at a time:

    context = token_mixer.context(query_input)            # once, for all agents
    state = token_mixer.start(carry, first)               # before the first agent
    state, y_i = token_mixer.step(state, context_i, x_i)  # for each agent
    carry = token_mixer.end(state)                        # after the last agent

Letters in shapes: T time steps (rows), B environments, N agents, E width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmarl.networks.memory import NoMemory
from jmarl.nn.initializers import orthogonal
from jmarl.nn.norm import LayerNorm


Factory = Callable[..., Any]
"""Constructor of a module; the only argument passed to it is ``name`` or ``parent``."""
LARGE_INIT = orthogonal(2**0.5)
"""Kernels in front of a nonlinearity."""
SMALL_INIT = orthogonal(0.01)
"""Kernels of outputs, and all kernels of attention."""


class TokenMixer(Protocol):
    """A module over the sequence of agents."""

    def initial(self, batch: int, n_agents: int, /) -> Any:
        """Return the carry before any row; () without memory."""
        ...

    def __call__(
        self,
        carry: Any,
        query_input: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
        /,
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        """Mix all agents of all rows.

        Args:
            carry: Memory before row 0.
            query_input: Input of the queries; position i of the output belongs to its agent i.
            x: Input of keys and values.
            first: True where an episode starts.

        Returns:
            The carry after the last row, and the mixed tokens.
        """
        ...


class DecoderTokenMixer(TokenMixer, Protocol):
    """A causal token mixer that can run one agent at a time."""

    def context(self, query_input: Float[Array, "*batch E"], /) -> Any:
        """Return all that depends on ``query_input`` only; leaves ``[*batch, ...]``."""
        ...

    def start(self, carry: Any, first: Bool[Array, " B"], /) -> Any:
        """Return the state before the first agent, with memory reset where ``first``."""
        ...

    def step(
        self, state: Any, context: Any, x: Float[Array, "B E"], /
    ) -> tuple[Any, Float[Array, "B E"]]:
        """Return the state after the next agent, and its mixed token."""
        ...

    def end(self, state: Any, /) -> Any:
        """Return the carry after the last agent."""
        ...


class MLP(nn.Module):
    """Two layers of one width with a GELU between them; small at initialization."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
        x = nn.Dense(self.width, kernel_init=LARGE_INIT)(x)
        return nn.Dense(self.width, kernel_init=SMALL_INIT)(nn.gelu(x))


class Memoryless(nn.Module):
    """Base of token mixers without memory from one row to the next."""

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def end(self, state: Any) -> tuple[()]:
        """Return the empty carry."""
        return ()


class Identity(Memoryless):
    """The token mixer ``y = x``, without exchange between agents."""

    def __call__(
        self,
        carry: tuple[()],
        query_input: Array,
        x: Float[Array, "T B N E"],
        first: Array,
    ) -> tuple[tuple[()], Float[Array, "T B N E"]]:
        return carry, x

    def context(self, query_input: Float[Array, "*batch E"]) -> tuple[()]:
        """Return no context."""
        return ()

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> tuple[()]:
        """Return the empty state."""
        return ()

    def step(
        self, state: tuple[()], context: tuple[()], x: Float[Array, "B E"]
    ) -> tuple[tuple[()], Float[Array, "B E"]]:
        """Return ``x``."""
        return state, x


class Residual(nn.Module):
    """``LN(x + Mix(query_input, x))``: the residual and norm that Mamba blocks contain.

    It gives them to a token mixer that lacks them.
    """

    token_mixer: Callable[..., DecoderTokenMixer]

    def setup(self) -> None:
        self.mix = self.token_mixer()
        self.norm = LayerNorm()

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> Any:
        """Return the initial carry of the token mixer."""
        return self.token_mixer(parent=None).initial(batch, n_agents)

    def __call__(
        self,
        carry: Any,
        query_input: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        carry, mixed = self.mix(carry, query_input, x, first)
        return carry, self.norm(x + mixed)

    def context(self, query_input: Float[Array, "*batch E"]) -> Any:
        """Return the context of the token mixer."""
        return self.mix.context(query_input)

    def start(self, carry: Any, first: Bool[Array, " B"]) -> Any:
        """Return the token mixer's state before the first agent."""
        return self.mix.start(carry, first)

    def step(
        self, state: Any, context: Any, x: Float[Array, "B E"]
    ) -> tuple[Any, Float[Array, "B E"]]:
        """Mix the next agent, then add the residual and normalize."""
        state, mixed = self.mix.step(state, context, x)
        return state, self.norm(x + mixed)

    def end(self, state: Any) -> Any:
        """Return the token mixer's carry after the last agent."""
        return self.mix.end(state)


class EncoderBlock(nn.Module):
    """``x = Memory(x); x = N(x + Mix(x, x)); x = N(x + MLP(x))``.

    ``memory``, a module of ``networks/memory.py``, runs over the rows of each agent. Without
    ``residual``, the second part is ``x = Mix(x, x)``, for a token mixer with an inner residual and
    norm.
    """

    token_mixer: Callable[..., TokenMixer]
    mlp_factory: Factory
    norm: Factory = LayerNorm
    memory: Factory = NoMemory
    residual: bool = True

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, Any]:
        """Return the carries of memory and token mixer before any row."""
        memory = self.memory(parent=None).initial(batch, n_agents)
        token_mixer = self.token_mixer(parent=None).initial(batch, n_agents)
        return memory, token_mixer

    @nn.compact
    def __call__(
        self,
        carry: tuple[Any, Any],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
        joined: Bool[Array, "T B N"],
    ) -> tuple[tuple[Any, Any], Float[Array, "T B N E"]]:
        """Run all agents in their own order; ``joined`` resets the memory of that agent only."""
        memory_carry, mixer_carry = carry
        reset = first[..., None] | joined  # [T, B, N]
        memory_carry, x = self.memory(name="memory")(memory_carry, x, reset)
        mixer_carry, mixed = self.token_mixer(name="mix")(mixer_carry, x, x, first)
        x = self.norm(name="norm_mix")(x + mixed) if self.residual else mixed
        x = x + self.mlp_factory(name="mlp")(x)
        return (memory_carry, mixer_carry), self.norm(name="norm_mlp")(x)


class DecoderBlock(nn.Module):
    """``x = N(x + Own(x, x)); x = N(rep + Cross(rep, x)); x = N(x + MLP(x))``, causal over agents.

    The second residual is ``rep``, which is also the query input. The action stream enters by token
    mixing only. Without ``residual``, the first part is ``x = Own(x, x)``, for a token mixer with
    an inner residual and norm.
    """

    own_token_mixer: Callable[..., DecoderTokenMixer]
    cross_token_mixer: Callable[..., DecoderTokenMixer]
    mlp_factory: Factory
    norm: Factory = LayerNorm
    residual: bool = True

    def setup(self) -> None:
        self.own = self.own_token_mixer()
        self.cross = self.cross_token_mixer()
        self.mlp = self.mlp_factory()
        self.norm_cross = self.norm()
        self.norm_mlp = self.norm()
        if self.residual:
            self.norm_own = self.norm()

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, Any]:
        """Return the carries of both token mixers before any row."""
        own = self.own_token_mixer(parent=None)
        cross = self.cross_token_mixer(parent=None)
        return own.initial(batch, n_agents), cross.initial(batch, n_agents)

    def __call__(
        self,
        carry: tuple[Any, Any],
        x: Float[Array, "T B N E"],
        rep: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> Float[Array, "T B N E"]:
        """Run all agents of all rows."""
        own_carry, cross_carry = carry
        _, mixed = self.own(own_carry, x, x, first)
        x = self._add_own(x, mixed)
        _, mixed = self.cross(cross_carry, rep, x, first)
        return self._add_cross(rep, mixed)

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Float[Array, "B N E"], Any]:
        """Return the residual, and the context of the second token mixer."""
        return rep, self.cross.context(rep)

    def start(
        self, carry: tuple[Any, Any], first: Bool[Array, " B"]
    ) -> tuple[Any, Any]:
        """Return the states of both token mixers before the first agent."""
        own_carry, cross_carry = carry
        return self.own.start(own_carry, first), self.cross.start(cross_carry, first)

    def step(
        self,
        state: tuple[Any, Any],
        x: Float[Array, "B E"],
        context: tuple[Float[Array, "B E"], Any],
    ) -> tuple[tuple[Any, Any], Float[Array, "B E"]]:
        """Run the next agent."""
        own_state, cross_state = state
        rep, cross_context = context
        own_state, mixed = self.own.step(own_state, self.own.context(x), x)
        x = self._add_own(x, mixed)
        cross_state, mixed = self.cross.step(cross_state, cross_context, x)
        return (own_state, cross_state), self._add_cross(rep, mixed)

    def end(self, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """Return the carries of both token mixers after the last agent."""
        own_state, cross_state = state
        return self.own.end(own_state), self.cross.end(cross_state)

    def _add_own(self, x: Array, mixed: Array) -> Array:
        return self.norm_own(x + mixed) if self.residual else mixed

    def _add_cross(self, rep: Array, mixed: Array) -> Array:
        x = self.norm_cross(rep + mixed)
        return self.norm_mlp(x + self.mlp(x))
