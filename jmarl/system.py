"""The interface between an algorithm and the training loop.

A ``System`` is to the training loop what ``optax.GradientTransformation`` is to an
optimizer: a tuple of pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct
from jaxtyping import Array, Float, Shaped

from jmarl.config import ConfigError
from jmarl.types import Carry, Extras, Key, Metrics, Params, Rollout, TimeStep


class Learner(struct.PyTreeNode, kw_only=True):
    """State of learning. A system extends it with its own fields, such as counters.

    Three operations read it by field name:

    * Evaluation and warm starts read ``params``.
    * A curriculum stage and a warm start keep ``params``, ``target`` and ``value_stats``.
      A stage also keeps the learning-rate schedules in ``opt_state``. All other fields
      are reset.
    * Sharding splits ``replay`` over devices along its environment axis.
    """

    params: Params
    opt_state: Any = ()
    target: Params | None = None
    """Parameters of the target network, with the shapes of ``params``."""
    value_stats: Any = None
    """Running statistics that normalize values."""
    replay: Any = None
    """Past experience; leaves are ``[rows, B, ...]``."""


class InitFn(Protocol):
    """Create a learner."""

    def __call__(self, key: Key, /) -> Learner:
        """Return the initial state of learning.

        Jittable. No two fields share a buffer, because the training loop donates them.
        """
        ...


class CarryFn(Protocol):
    """Create the memory of the policy at the start of an episode."""

    def __call__(self, batch: int, /) -> Carry:
        """Return the initial memory with a leading B on each leaf; ``()`` without memory."""
        ...


class ActFn(Protocol):
    """Choose actions. Training and evaluation call the same function."""

    def __call__(
        self,
        params: Params,
        carry: Carry,
        timestep: TimeStep,
        key: Key,
        explore: Float[Array, ""],
        /,
    ) -> tuple[Shaped[Array, "B N ..."], Carry, Extras]:
        """Choose an action for every agent.

        Args:
            params: Parameters of the policy.
            carry: Memory before this time step. It is reset if ``timestep.first``.
            timestep: Current time step of B environments.
            key: Random key of this time step.
            explore: Exploration rate in [0, 1]; 0 is greedy.

        Returns:
            Actions ``[B, N, ...]``, the memory after this time step, and extras that
            learning needs, such as log-probabilities.
        """
        ...


class UpdateFn(Protocol):
    """Learn from one rollout."""

    def __call__(
        self, learner: Any, rollout: Rollout, key: Key, /
    ) -> tuple[Any, Metrics]:
        """Return the learner after one learning phase, and scalar metrics.

        The learner is the system's own subclass of ``Learner``.
        """
        ...


class ExploreFn(Protocol):
    """Schedule the exploration rate."""

    def __call__(self, env_steps: Float[Array, ""], /) -> Float[Array, ""]:
        """Return the rate after ``env_steps`` environment steps.

        Policy-gradient systems return 1. At infinity, the result is the final rate of
        training. Sampled evaluations use this final rate.
        """
        ...


class LatentsFn(Protocol):
    """Read the agents' latents from the memory of a policy."""

    def __call__(
        self, carry: Carry, /
    ) -> tuple[Float[Array, "B N K"], Float[Array, "B N K"]]:
        """Return mean and sample of the latents of the last time step.

        Args:
            carry: Memory after ``act``.
        """
        ...


class PolicyFn(Protocol):
    """Return the action distribution of each agent, without acting."""

    def __call__(
        self,
        params: Params,
        carry: Carry,
        timestep: TimeStep,
        key: Key,
        explore: Float[Array, ""],
        /,
    ) -> tuple[Any, Carry]:
        """Return the distribution that ``act`` samples, and the memory after this time step.

        Args:
            params: Parameters of the policy.
            carry: Memory before this time step. It is reset if ``timestep.first``.
            timestep: Time step of B environments.
            key: Random key of latents, if the policy has any.
            explore: 0: latents are at their means.

        Returns:
            Distribution over actions (``networks/heads.py``) for ``[B, N]``, and the memory.
            The part of the memory that only a critic reads may be unchanged.
        """
        ...


class System(NamedTuple):
    """An algorithm as pure functions, built by a module's ``make(spec, config)``."""

    init: InitFn
    carry: CarryFn
    act: ActFn
    update: UpdateFn
    explore: ExploreFn
    latents: LatentsFn | None = None
    """Latents of agents, if the system has any."""
    fault: ConfigError | None = None
    """Error of training in this environment, in which the system can only act."""
    policy: PolicyFn | None = None
    """Action distributions of agents, if each agent acts on its observation alone."""


InitPart = Callable[[Key], Params]
"""Function that initializes a part of the parameters."""


NO_PARTS: Mapping[str, InitPart] = MappingProxyType({})


class LossTerms(NamedTuple):
    """Terms that a system adds to the loss of a kit."""

    terms: tuple[Any, ...] = ()
    """Terms in the form of the kit."""
    parts: Mapping[str, InitPart] = NO_PARTS
    """Functions that initialize parts of the parameters that only these terms read."""
    fault: ConfigError | None = None
    """Error of training with these terms in this environment."""


NO_TERMS = LossTerms()


def init_parts(parts: Mapping[str, InitPart], key: Key) -> dict[str, Params]:
    """Initialize parts of the parameters that only terms of a loss read.

    Args:
        parts: Function by the top-level key of its part.
        key: Random key, which other parts may be initialized from too.
    """
    keys = [jax.random.fold_in(key, i) for i in range(len(parts))]
    return {name: init(k) for (name, init), k in zip(parts.items(), keys, strict=True)}
