"""Actor and critic of observations as one vector, with separate parameters and memories.

All agents share the parameters of each network.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import check, check_range
from jmarl.networks.flatten import agent_one_hot, obs_parts, state_parts
from jmarl.networks.heads import ActionDist, ActionHead, value_head
from jmarl.networks.memory import Between, MemoryKind, make_memory, scan_module
from jmarl.networks.sharing import SharingConfig
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import MLP, Activation
from jmarl.platforms import platform
from jmarl.types import Carry, EntityObs, Spec


FlatInput = Literal["obs", "state", "state_and_id", "state_and_obs"]
"""Input of a ``Critic``: the agent's observation, or the central state.

The agent's one-hot or its observation may accompany the state, so that values differ by agent.
"""


Parts = tuple[Float[Array, "T B ? F"], ...]
"""Parts of an input; an agent axis of length one is shared by the team."""

BLOCK_ROWS = 512
"""Rows (time steps x environments of one device x agents) in one block of a ``Trunk`` on a CPU."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(SharingConfig):
    """Sizes of actor and critic: ``torso`` layers, memory, ``head`` layers, output layer."""

    torso: tuple[int, ...]
    memory: MemoryKind
    memory_width: int
    head: tuple[int, ...]
    activation: Activation
    layer_norm: bool
    agent_id: bool
    name: Literal["flat"] = "flat"
    """Name that selects this agent in systems that accept all of ``networks/agents``."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: If a value breaks a rule.
        """
        fits_ssm = self.memory != "ssm" or self.torso[-1:] == (self.memory_width,)
        rule = "must equal the last width of network.torso with network.memory=ssm"
        check(fits_ssm, "network.memory_width", self.memory_width, rule)
        has_layers = len(self.torso) > 0
        check(has_layers, "network.torso", self.torso, "must have at least one layer")
        for key in ("torso", "head"):
            widths = getattr(self, key)
            rule = "must have layers of at least one unit"
            check(all(n > 0 for n in widths), f"network.{key}", widths, rule)
        check_range("network.memory_width", self.memory_width, 1)


class Trunk(nn.Module):
    """Torso, memory and head layers: all layers before the output.

    On a CPU the trunk processes blocks of a few time steps, so that a block's activations stay in
    the cache. On other platforms it processes all T at once. An SSM scans all T on every platform.
    """

    config: NetworkConfig

    @nn.nowrap
    def initial(self, *batch: int) -> Carry:
        """Return the memory before any observation."""
        return make_memory(self.config.memory, self.config.memory_width).initial(*batch)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        parts: Parts,
        reset: Bool[Array, "T B ..."],
        between: Between | None = None,
    ) -> tuple[Carry, Float[Array, "T B ? H"], Float[Array, "T B ? H"]]:
        """Return the next memory, the output, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            parts: Input parts whose agent axes broadcast (see ``MLP``).
            reset: Flags of the time steps before which the memory is reset.
            between: Function of the features of all T, before the head layers.
        """
        layers = Layers(self.config, name="layers")
        inputs = carry, parts, reset
        if between is None:
            carry, (x, features) = self._over_time(layers, "__call__", *inputs)
            return carry, x, features
        carry, features = self._over_time(layers, "remember", *inputs)
        return carry, layers.head(between(features, features)), features

    def _over_time(
        self,
        layers: Layers,
        method: str,
        carry: Carry,
        parts: Parts,
        reset: Bool[Array, "T B ..."],
    ) -> tuple[Carry, Any]:
        """Apply a method of the layers to all T, or on a CPU to one block after the other."""
        length = len(reset)
        rows = max(math.prod(part.shape[1:-1]) for part in parts)
        block = _block_length(length, rows)
        on_cpu = platform() == "cpu"
        if block == length or self.config.memory == "ssm" or not on_cpu:
            return getattr(layers, method)(carry, parts, reset)

        def split_time(x: jax.Array) -> jax.Array:  # [T, ...] -> [T/t, t, ...]
            return x.reshape(length // block, block, *x.shape[1:])

        def join_time(x: jax.Array) -> jax.Array:
            return x.reshape(length, *x.shape[2:])

        blocks = jax.tree.map(split_time, (parts, reset))
        carry, out = scan_module(layers, carry, blocks, method)
        return carry, jax.tree.map(join_time, out)


def _block_length(length: int, rows: int) -> int:
    """Return the largest divisor of ``length`` whose block fits in ``BLOCK_ROWS``, or 1."""
    divisors = [n for n in range(1, length + 1) if length % n == 0]
    fitting = [n for n in divisors if n * rows <= BLOCK_ROWS]
    return max(fitting, default=1)


class Layers(nn.Module):
    """Layers of a ``Trunk``, applied to all T rows of their input."""

    config: NetworkConfig

    def setup(self) -> None:
        cfg = self.config
        self.torso = MLP(cfg.torso, cfg.activation, cfg.layer_norm)
        self.memory = make_memory(cfg.memory, cfg.memory_width)
        self.head = MLP(cfg.head, cfg.activation, cfg.layer_norm)

    def __call__(
        self, carry: Carry, parts: Parts, reset: Bool[Array, "T B ..."]
    ) -> tuple[Carry, tuple[Float[Array, "T B ? H"], Float[Array, "T B ? H"]]]:
        """Return the next memory, and the output of the head with the features that it read."""
        carry, features = self.remember(carry, parts, reset)
        return carry, (self.head(features), features)

    def remember(
        self, carry: Carry, parts: Parts, reset: Bool[Array, "T B ..."]
    ) -> tuple[Carry, Float[Array, "T B ? H"]]:
        """Return the next memory and the features after it."""
        return self.memory(carry, self.torso(*parts), reset)


class AgentNet(nn.Module):
    """Network from each agent's own observation to one number per action: a logit or a mean.

    The output kernel starts orthogonal with gain ``out_scale``. The gain is small, so that the
    initial policy is nearly uniform.
    """

    output_layers: ClassVar = ("out",)
    spec: Spec
    config: NetworkConfig
    out_scale: float = 0.01

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of every agent, with leaves ``[B, N, ...]``."""
        return Trunk(self.config, parent=None).initial(batch, self.spec.n_agents)

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        obs: EntityObs,
        first: Bool[Array, "T B"],
        between: Between | None = None,
    ) -> tuple[Carry, Float[Array, "T B N A"], Float[Array, "T B N H"]]:
        """Return the next memory, the outputs, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
            between: Function of the features, before the head layers.
        """
        parts = obs_parts(obs, self.spec, agent_id=self.config.agent_id)
        reset = first[..., None] | obs.joined  # [T, B, N]
        trunk = Trunk(self.config, name="trunk")
        carry, x, features = trunk(carry, parts, reset, between)
        kernel_init = orthogonal(self.out_scale)
        out = nn.Dense(self.spec.n_actions, kernel_init=kernel_init, name="out")
        return carry, out(x), features


class Policy(nn.Module):
    """Action distribution from the output of ``net``, an ``AgentNet`` or an entity agent."""

    net: nn.Module
    discrete: bool

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of the network."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, ActionDist, Float[Array, "T B N H"]]:
        """Return the next memory, action distributions, and features, for ``obs[T, B, N]``."""
        carry, out, features = self.net(carry, obs, first)
        return carry, ActionHead(self.discrete, name="head")(out, obs.avail), features


class Critic(nn.Module):
    """Value for every agent; computations that agents share are done once per team.

    With ``reads="state"`` the whole critic runs once per team, and all agents have the same value.
    """

    spec: Spec
    config: NetworkConfig
    reads: FlatInput

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of every agent, or of the team if ``reads="state"``."""
        memories = 1 if self.reads == "state" else self.spec.n_agents
        return Trunk(self.config, parent=None).initial(batch, memories)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N"]]:
        """Return the next memory and values in normalized units.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
        """
        joined = False if self.reads == "state" else obs.joined
        reset = first[..., None] | joined  # [T, B, N], or [T, B, 1] for a team
        trunk = Trunk(self.config, name="trunk")
        carry, x, _ = trunk(carry, self._parts(obs), reset)
        return carry, jnp.broadcast_to(value_head(x), obs.alive.shape)

    def _parts(self, obs: EntityObs) -> Parts:
        own = obs_parts(obs, self.spec, agent_id=self.config.agent_id)
        state = tuple(part[..., None, :] for part in state_parts(obs.state))
        match self.reads:
            case "obs":
                return own
            case "state":
                return state
            case "state_and_id":
                return *state, agent_one_hot(obs, self.spec)
            case "state_and_obs":
                return state + own
