"""The seam: a system is to the training loop what ``optax.GradientTransformation`` is to an optimizer."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float, Shaped

from jmarl.types import Carry, Extras, Key, Metrics, Params, Rollout, TimeStep


Learner = Any
"""A ``flax.struct.PyTreeNode`` of the system's own with at least the field ``params``.

A field ``replay``, if it has one, holds the past of every environment: its leaves are ``[rows, B, ...]``, and lie where
their environments do.

To a world with another number of units a learner hands over the fields ``TRANSFERABLE_FIELDS``, as far as it has them. Of its
``opt_state`` the schedules go on while moments begin anew (``learning.optim.keep_schedules``), or all of it goes
on, as when a run resumes without its replay. Every other field begins anew, so it may count what the replay holds.
"""
TRANSFERABLE_FIELDS = ("params", "target", "value_stats")
"""What was learnt: parameters, those of a target network in the same shapes, statistics of the values."""


class InitFn(Protocol):
    """Make a learner."""

    def __call__(self, key: Key, /) -> Learner:
        """Parameters, optimizer state, targets, counters. Jittable; shares no buffer between fields."""
        ...


class CarryFn(Protocol):
    """Make the memory that an episode begins with."""

    def __call__(self, batch: int, /) -> Carry:
        """Initial memory of the policy, each leaf with a leading B; ``()`` when it has none."""
        ...


class ActFn(Protocol):
    """Act; the policy."""

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

        ``explore`` lies in [0, 1] and 0 is greedy. Memory is reset where ``timestep.first``
        before it is read. Training and evaluation call this same function.
        """
        ...


class UpdateFn(Protocol):
    """Learn."""

    def __call__(
        self, learner: Learner, rollout: Rollout, key: Key, /
    ) -> tuple[Learner, Metrics]:
        """One whole learning phase; the metrics are scalars."""
        ...


class ExploreFn(Protocol):
    """Schedule exploration."""

    def __call__(self, env_steps: Float[Array, ""], /) -> Float[Array, ""]:
        """The exploration rate after that many environment steps; constant 1 for policy gradients.

        At infinity it is the rate that training ends with, which sampled evaluations use.
        """
        ...


class System(NamedTuple):
    """An algorithm as pure functions, built by one ``make(spec, config)``."""

    init: InitFn
    carry: CarryFn
    act: ActFn
    update: UpdateFn
    explore: ExploreFn
