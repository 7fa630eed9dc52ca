"""Actor and critic with separate parameters and memories, shared by all agents."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check, check_range
from jmarl.networks.flatten import flat_parts, one_hot, state_parts
from jmarl.networks.heads import ActionDist, ActionHead
from jmarl.networks.memory import MemoryKind, make_memory
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import MLP, Activation
from jmarl.types import Carry, EntityObs, Spec


CriticInput = Literal["obs", "state", "state_and_id", "state_and_obs"]
"""What a critic reads: the agent's own observation, or the central state, alone or with what tells agents apart."""


BLOCK_ROWS = 512
"""Rows (time steps x environments of one device x agents) that a ``Trunk`` takes at once on a CPU."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of actor and critic: ``torso`` layers, then the memory, then ``head`` layers, then the output."""

    torso: tuple[int, ...]
    memory: MemoryKind
    memory_width: int
    head: tuple[int, ...]
    activation: Activation
    layer_norm: bool
    agent_id: bool
    name: Literal["flat"] = "flat"
    """Tells it from the entity agents where a system takes either (``networks/agents``)."""

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        same = self.memory != "ssm" or self.torso[-1:] == (self.memory_width,)
        check(
            same,
            "network.memory_width",
            self.memory_width,
            "must equal the last of network.torso with memory=ssm",
        )
        check(
            len(self.torso) > 0, "network.torso", self.torso, "needs at least one layer"
        )
        check(
            all(n > 0 for n in self.torso + self.head),
            "network.torso",
            self.torso + self.head,
            "must be positive",
        )
        check_range("network.memory_width", self.memory_width, 1)


class Trunk(nn.Module):
    """Torso, memory, head layers: everything before the output.

    On a CPU it runs a few time steps at a time, whose activations stay in the cache; elsewhere over all T
    at once. An SSM's scan is over all T anywhere.
    """

    config: NetworkConfig

    @nn.nowrap
    def initial(self, *batch: int) -> Carry:
        """The memory before any observation."""
        return make_memory(self.config.memory, self.config.memory_width).initial(*batch)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        parts: tuple[Float[Array, "T B ? F"], ...],
        first: Bool[Array, "T B ..."],
    ) -> tuple[Carry, Float[Array, "T B ? H"]]:
        """Input parts whose agent axes broadcast (see ``MLP``) to features."""
        layers = Layers(self.config, name="layers")
        length, rows = len(first), max(math.prod(part.shape[1:-1]) for part in parts)
        block = _block(length, rows)
        if (
            block == length
            or self.config.memory == "ssm"
            or jax.default_backend() != "cpu"
        ):
            return layers(carry, parts, first)
        blocks = jax.tree.map(
            lambda x: x.reshape(length // block, block, *x.shape[1:]), (parts, first)
        )
        scan = nn.scan(
            lambda layers, carry, inputs: layers(carry, *inputs),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        carry, x = scan(layers, carry, blocks)
        return carry, x.reshape(length, *x.shape[2:])


def _block(length: int, rows: int) -> int:
    """Time steps of one block: they divide ``length`` and have at most ``BLOCK_ROWS`` rows together, or it is one."""
    fitting = [
        n for n in range(1, length + 1) if length % n == 0 and n * rows <= BLOCK_ROWS
    ]
    return max(fitting, default=1)


class Layers(nn.Module):
    """The layers of a ``Trunk``, over all T rows that they are given."""

    config: NetworkConfig

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        parts: tuple[Float[Array, "T B ? F"], ...],
        first: Bool[Array, "T B ..."],
    ) -> tuple[Carry, Float[Array, "T B ? H"]]:
        """As ``Trunk``."""
        cfg = self.config
        x = MLP(cfg.torso, cfg.activation, cfg.layer_norm, name="torso")(*parts)
        carry, x = make_memory(cfg.memory, cfg.memory_width)(carry, x, first)
        return carry, MLP(cfg.head, cfg.activation, cfg.layer_norm, name="head")(x)


class AgentNet(nn.Module):
    """One number for each action of each agent, from the agent's own observation: logits, or means.

    The output kernel starts orthogonal at ``out_scale``; small, so that a first policy is nearly uniform.
    """

    spec: Spec
    config: NetworkConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Memory of every agent."""
        return Trunk(self.config, parent=None).initial(batch, self.spec.n_agents)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to outputs."""
        parts = flat_parts(obs, self.spec, agent_id=self.config.agent_id)
        carry, x = Trunk(self.config, name="trunk")(
            carry, parts, first[..., None] | obs.joined
        )
        return carry, nn.Dense(
            self.spec.n_actions, kernel_init=orthogonal(self.out_scale), name="out"
        )(x)


class Policy(nn.Module):
    """The action distribution that a network's output stands for; ``net`` is an ``AgentNet`` or alike."""

    net: nn.Module
    discrete: bool

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """The network's memory."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, ActionDist]:
        """Observations ``[T, B, N]`` to a distribution over actions."""
        carry, out = self.net(carry, obs, first)
        return carry, ActionHead(self.discrete, name="head")(out, obs.avail)


class Critic(nn.Module):
    """A value for every agent; work that agents share is done once for the team.

    With ``reads="state"`` the whole critic runs once for a team and its value is that of every agent.
    """

    spec: Spec
    config: NetworkConfig
    reads: CriticInput

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Memory of every agent, or of the team where agents are not told apart."""
        return Trunk(self.config, parent=None).initial(
            batch, 1 if self.reads == "state" else self.spec.n_agents
        )

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N"]]:
        """Observations ``[T, B, N]`` and where episodes begin, to values in normalized units."""
        joined = False if self.reads == "state" else obs.joined
        carry, x = Trunk(self.config, name="trunk")(
            carry, self._parts(obs), first[..., None] | joined
        )
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(x)[..., 0]
        return carry, jnp.broadcast_to(value, obs.alive.shape)

    def _parts(self, obs: EntityObs) -> tuple[Float[Array, "T B ? F"], ...]:
        own = flat_parts(obs, self.spec, agent_id=self.config.agent_id)
        state = tuple(part[..., None, :] for part in state_parts(obs.state))
        if self.reads == "state_and_id":
            return *state, one_hot(obs, self.spec)
        return {"obs": own, "state": state, "state_and_obs": state + own}[self.reads]
