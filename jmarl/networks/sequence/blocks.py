"""The post-norm blocks of MAT, MAM and Sable, around whatever mixes the agents.

A mixer is a module over the sequence of agents, ``mixer(carry, asking, x, first) -> (carry, y)`` with ``asking``, ``x``
and ``y`` ``[T, B, N, E]`` and ``first[T, B]``: position i of y is what agent i of ``asking`` learns from ``x``. Its
``initial(B, N)`` is the carry before any row, () where it remembers none. One that a decoder can use sees no later
agent, and acts one agent at a time:

    context = mixer.context(asking[..., E])               what depends on ``asking`` alone, leaves [..., F]
    state = mixer.start(carry, first[B])                  before the first agent
    state, y_i = mixer.step(state, context_i, x_i[B, E])  one agent
    carry = mixer.end(state)                              after the last agent
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmarl.networks.memory import NoMemory
from jmarl.nn.initializers import orthogonal
from jmarl.nn.norm import LayerNorm


Factory = Callable[..., Any]
WIDE, NARROW = orthogonal(2**0.5), orthogonal(0.01)


class MLP(nn.Module):
    """Two layers of one width with a GELU between them; small at the start."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
        """Each agent on its own."""
        x = nn.gelu(nn.Dense(self.width, kernel_init=WIDE)(x))
        return nn.Dense(self.width, kernel_init=NARROW)(x)


class Memoryless(nn.Module):
    """What mixers share that forget after every row."""

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def end(self, state: Any) -> tuple[()]:
        """Nothing is remembered."""
        return ()


class Through(Memoryless):
    """No mixing: ``y = x``."""

    def __call__(
        self, carry: tuple[()], asking: Array, x: Float[Array, "T B N E"], first: Array
    ) -> tuple[tuple[()], Float[Array, "T B N E"]]:
        """All agents at once."""
        return carry, x

    def context(self, asking: Float[Array, "*batch E"]) -> tuple[()]:
        """Nothing is asked."""
        return ()

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> tuple[()]:
        """Nothing is heard."""
        return ()

    def step(
        self, state: tuple[()], context: tuple[()], x: Float[Array, "B E"]
    ) -> tuple[tuple[()], Float[Array, "B E"]]:
        """One agent."""
        return state, x


class Residual(nn.Module):
    """``LN(x + Mix(asking, x))``: what a Mamba module has inside, around a mixer that has not."""

    mixer: Factory

    def setup(self) -> None:
        """The mixer, and a norm."""
        self.mix, self.norm = self.mixer(), LayerNorm()

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> Any:
        """As the mixer."""
        return self.mixer(parent=None).initial(batch, n_agents)

    def __call__(
        self,
        carry: Any,
        asking: Float[Array, "T B N E"],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        """All agents at once."""
        carry, mixed = self.mix(carry, asking, x, first)
        return carry, self.norm(x + mixed)

    def context(self, asking: Float[Array, "*batch E"]) -> Any:
        """As the mixer."""
        return self.mix.context(asking)

    def start(self, carry: Any, first: Bool[Array, " B"]) -> Any:
        """As the mixer."""
        return self.mix.start(carry, first)

    def step(
        self, state: Any, context: Any, x: Float[Array, "B E"]
    ) -> tuple[Any, Float[Array, "B E"]]:
        """One agent."""
        state, mixed = self.mix.step(state, context, x)
        return state, self.norm(x + mixed)

    def end(self, state: Any) -> Any:
        """As the mixer."""
        return self.mix.end(state)


class EncoderBlock(nn.Module):
    """``x = Memory(x); x = N(x + Mix(x, x)); x = N(x + MLP(x))``.

    ``memory``, one sequence of rows for each agent, is a module of ``networks/memory.py``. Without ``residual``
    the second part is ``x = Mix(x, x)``, for a mixer that has a residual and a norm inside.
    """

    mixer: Factory
    mlp_factory: Factory
    norm: Factory = LayerNorm
    memory: Factory = NoMemory
    residual: bool = True

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, Any]:
        """What memory and mixer remember before any row."""
        return self.memory(parent=None).initial(batch, n_agents), self.mixer(
            parent=None
        ).initial(batch, n_agents)

    @nn.compact
    def __call__(
        self,
        carry: tuple[Any, Any],
        x: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
        joined: Bool[Array, "T B N"],
    ) -> tuple[tuple[Any, Any], Float[Array, "T B N E"]]:
        """All agents at once, in their own order; an agent that joins an episode resets its own memory alone."""
        memory, x = self.memory(name="memory")(carry[0], x, first[..., None] | joined)
        kept, mixed = self.mixer(name="mix")(carry[1], x, x, first)
        x = self.norm(name="norm_mix")(x + mixed) if self.residual else mixed
        return (memory, kept), self.norm(name="norm_mlp")(
            x + self.mlp_factory(name="mlp")(x)
        )


class DecoderBlock(nn.Module):
    """``x = N(x + Own(x, x)); x = N(rep + Cross(rep, x)); x = N(x + MLP(x))``, causal over agents.

    The second residual stands on ``rep``, which also asks: the action stream enters by mixing alone. Without
    ``residual`` the first part is ``x = Own(x, x)``, for a mixer that has a residual and a norm inside.
    """

    own_mixer: Factory
    cross_mixer: Factory
    mlp_factory: Factory
    norm: Factory = LayerNorm
    residual: bool = True

    def setup(self) -> None:
        """Two mixers, a feed-forward part, and the norms after them."""
        self.own, self.cross, self.mlp = (
            self.own_mixer(),
            self.cross_mixer(),
            self.mlp_factory(),
        )
        self.norm_cross, self.norm_mlp = self.norm(), self.norm()
        if self.residual:
            self.norm_own = self.norm()

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, Any]:
        """What the two mixers remember before any row."""
        own, cross = self.own_mixer(parent=None), self.cross_mixer(parent=None)
        return own.initial(batch, n_agents), cross.initial(batch, n_agents)

    def __call__(
        self,
        carry: tuple[Any, Any],
        x: Float[Array, "T B N E"],
        rep: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> Float[Array, "T B N E"]:
        """All agents and rows at once."""
        x = self._open(x, self.own(carry[0], x, x, first)[1])
        return self._close(rep, self.cross(carry[1], rep, x, first)[1])

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Float[Array, "B N E"], Any]:
        """The residual, and what the second mixer computes of ``rep`` alone."""
        return rep, self.cross.context(rep)

    def start(
        self, carry: tuple[Any, Any], first: Bool[Array, " B"]
    ) -> tuple[Any, Any]:
        """The mixers' states before the first agent."""
        return self.own.start(carry[0], first), self.cross.start(carry[1], first)

    def step(
        self,
        state: tuple[Any, Any],
        x: Float[Array, "B E"],
        context: tuple[Float[Array, "B E"], Any],
    ) -> tuple[tuple[Any, Any], Float[Array, "B E"]]:
        """One agent."""
        rep, asked = context
        own, mixed = self.own.step(state[0], self.own.context(x), x)
        x = self._open(x, mixed)
        cross, mixed = self.cross.step(state[1], asked, x)
        return (own, cross), self._close(rep, mixed)

    def end(self, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """What the mixers remember after the last agent."""
        return self.own.end(state[0]), self.cross.end(state[1])

    def _open(self, x: Array, mixed: Array) -> Array:
        return self.norm_own(x + mixed) if self.residual else mixed

    def _close(self, rep: Array, mixed: Array) -> Array:
        x = self.norm_cross(rep + mixed)
        return self.norm_mlp(x + self.mlp(x))
