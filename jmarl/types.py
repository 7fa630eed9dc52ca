"""Types shared by environments, networks, systems and the training loop.

Axes have one order everywhere, and arrays are time-major:

* ``T``: time
* ``B``: environment
* ``N``: agent
* ``E``: entity
* ``F``: feature
* ``A``: action

A row is one time step of one environment. In a shape, ``*batch`` stands for ``B`` when
acting and for ``T B`` when learning.

An environment resets one step after an episode ends (next-step reset). The last observation
of an episode is therefore an ordinary row. The action taken on that row is ignored, and losses
and statistics mask the row. The following step returns the first observation of the next
episode. ``TimeStep`` holds the flags of the action that led to its observation. ``Transition``
holds the flags of the action taken on its observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped


Key = PRNGKeyArray
"""Typed JAX random key."""
Params = Any
"""Parameters of a network: a pytree of arrays."""
Carry = Any
"""Memory of a policy between time steps: a pytree, ``()`` if the policy has no memory."""
Extras = Any
"""Outputs of a policy that learning needs, such as log probabilities: a pytree."""
EnvState = Any
"""State of B environments: a pytree whose leaves have a leading B."""
Metrics = dict[str, Float[Array, "..."]]
"""Training metrics by name."""


class Group(NamedTuple):
    """One kind of entity, such as ``allies``, ``enemies``, ``landmarks`` or ``food``.

    An agent is an entity of the central state but not of its own observation. A group of
    agents therefore has ``state_size == size + 1``.
    """

    name: str
    size: int
    """Number of entities that one agent observes."""
    width: int
    """Number of features of an observed entity."""
    state_size: int
    """Number of entities in the central state."""
    state_width: int
    """Number of features of an entity in the central state."""


class ObsCodec(Protocol):
    """Compact encoding of observations, which a replay buffer stores in their place.

    A ``Spec`` holds its codec, so a codec must be hashable and equal by value.
    """

    def encode(self, state: EnvState, /) -> Any:
        """Return the part of the environment state that determines the observations.

        Args:
            state: State of B environments.

        Returns:
            Encoded observations, a pytree whose leaves have a leading B.
        """
        ...

    def decode(self, encoded_obs: Any, /) -> EntityObs:
        """Return the observations of the time step that came with the encoded state.

        Args:
            encoded_obs: Return value of ``encode`` for B environments.

        Returns:
            Observations of B environments.
        """
        ...

    def empty(self, *batch: int) -> Any:
        """Return zeros with the structure and dtypes of encoded observations.

        Args:
            *batch: Sizes of the leading axes.

        Returns:
            Encoded observations, a pytree whose leaves have the leading axes ``*batch``.
        """
        ...


BY_CLASS = -2
"""Entry of ``Spec.action_target``: the target depends on the unit class of the agent."""


class Spec(NamedTuple):
    """Static description of an environment. Hashable, so it can be a static argument of jit.

    The slots of an observer count its entities through ``groups`` in order.
    """

    n_agents: int
    """Number of agents N; if teams have several sizes, the largest."""
    n_actions: int
    """Number of discrete actions, or of components of a continuous action."""
    own_width: int
    """Number of features of ``EntityObs.own``."""
    groups: tuple[Group, ...]
    """Entity groups; empty if observations are flat vectors."""
    global_width: int
    """Number of features of ``CentralState.features``."""
    episode_limit: int
    """Largest number of actions in an episode."""
    action_target: tuple[int, ...]
    """Slot that each action is aimed at, -1 for an action without a target, or ``BY_CLASS``.

    Its length is ``n_actions``. All entries of a continuous environment are -1. By convention
    actions without a target come first, then those at enemies, then those at allies.
    """
    n_unit_classes: int = 1
    """Number of values of ``EntityObs.unit_class``."""
    class_actions: tuple[tuple[bool, ...], ...] = ()
    """Whether a unit class can ever take an action, ``[n_unit_classes][n_actions]``.

    Empty if every class can take every action.
    """
    agent_classes: tuple[int, ...] = ()
    """Unit classes that agents can have; empty if they can have all."""
    discrete: bool = True
    """False if an action is a vector of ``n_actions`` components in [-1, 1]."""
    outcomes: tuple[str, ...] = ()
    """Entries of ``TimeStep.info`` that score an episode when it ends, for example ``won``."""
    obs_codec: ObsCodec | None = None
    """Compact encoding of observations for replay buffers."""
    class_features: tuple[int, ...] = ()
    """Columns of ``EntityObs.own`` with the one-hot of the unit class; empty if there are none."""
    fixed_team: bool = True
    """False if some agents may be absent from an episode (see ``EntityObs.present``)."""

    @property
    def n_slots(self) -> int:
        """Number of entities that one agent observes, over all groups."""
        return sum(group.size for group in self.groups)

    @property
    def group_actions(self) -> tuple[tuple[bool, ...], ...]:
        """Return whether a group of agents can ever take an action, ``[groups][n_actions]``.

        Unit classes that agents can have, and that have equal actions, form a group.
        """
        every = ((True,) * self.n_actions,) * self.n_unit_classes
        rows = self.class_actions or every
        classes = self.agent_classes or range(self.n_unit_classes)
        return tuple(dict.fromkeys(rows[c] for c in classes))

    @property
    def action_group(self) -> tuple[int, ...]:
        """Action group (0, 1, ...) of each unit class; -1 for actions that no agent has."""
        groups = {row: rank for rank, row in enumerate(self.group_actions)}
        if not self.class_actions:
            return (0,) * self.n_unit_classes
        return tuple(groups.get(row, -1) for row in self.class_actions)

    @property
    def action_kind(self) -> tuple[int, ...]:
        """Rank (0, 1, ...) of each action among the actions with the same target."""
        seen: dict[int, int] = {}
        kinds = []
        for target in self.action_target:
            kind = seen.get(target, 0)
            kinds.append(kind)
            seen[target] = kind + 1
        return tuple(kinds)


class CentralState(struct.PyTreeNode):
    """Input of a central critic or a mixer, independent of any observer.

    ``rows`` and ``mask`` are aligned with ``Spec.groups``. The first rows of ``allies`` are the
    agents in their order. Further rows of ``allies`` are teammates that no agent controls.
    """

    features: Float[Array, "*batch Fs"]
    """Global features, ``Spec.global_width`` of them."""
    rows: tuple[Float[Array, "*batch E F"], ...]
    """Features of all entities, one array for each group."""
    mask: tuple[Bool[Array, "*batch E"], ...]
    """False for rows of dead entities and for padding; these rows are zero."""


class EntityObs(struct.PyTreeNode):
    """Observations of all agents, as entities.

    ``rows`` and ``mask`` are aligned with ``Spec.groups``. Flat observation vectors are derived
    from entities, never the reverse.
    """

    own: Float[Array, "*batch N F"]
    """Features of the observing agent itself."""
    rows: tuple[Float[Array, "*batch N E F"], ...]
    """Features of the observed entities, one array for each group."""
    mask: tuple[Bool[Array, "*batch N E"], ...]
    """False for rows that are dead, unseen or padding; these rows are zero and have no effect."""
    avail: Bool[Array, "*batch N A"]
    """Available actions: at least one for each present agent, dead ones included."""
    alive: Bool[Array, "*batch N"]
    """False for dead and absent agents."""
    joined: Bool[Array, "*batch N"]
    """True if another unit took the place of this agent, which resets the agent's memory."""
    unit_class: Int[Array, "*batch N"]
    """Type of each agent's unit, in ``[0, Spec.n_unit_classes)``."""
    state: CentralState
    """Central state for critics and mixers."""

    @property
    def present(self) -> Bool[Array, "*batch N"]:
        """Mask of agents that exist in the episode; an absent agent has no available action."""
        return self.alive | self.avail.any(-1)

    def agent(self, i: Int[Array, ""] | int) -> EntityObs:
        """Return the observations of a team of one: agent i alone, with the same central state.

        Args:
            i: Index of the agent; it may be traced.

        Returns:
            Observations with N = 1.
        """

        def select(x: Array, axis: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, i, 1, axis % x.ndim)

        return self._map_agents(select)

    def split_agents(self) -> EntityObs:
        """Return the observations of N teams of one, along a new first axis.

        Entry i is ``agent(i)``. The central state is not repeated.

        Returns:
            Observations with leaves ``[N, *batch, 1, ...]``, except for those of ``state``.
        """

        def split(x: Array, axis: int) -> Array:
            return jnp.moveaxis(jnp.expand_dims(x, axis), axis - 1, 0)

        return self._map_agents(split)

    def _map_agents(self, fn: Callable[[Array, int], Array]) -> EntityObs:
        """Apply ``fn(x, axis)`` to the arrays with an agent axis, which counts from the end."""
        return self.replace(
            own=fn(self.own, -2),
            rows=tuple(fn(x, -3) for x in self.rows),
            mask=tuple(fn(x, -2) for x in self.mask),
            avail=fn(self.avail, -2),
            alive=fn(self.alive, -1),
            joined=fn(self.joined, -1),
            unit_class=fn(self.unit_class, -1),
        )

    def team_mean(self, x: Float[Array, "*batch N"]) -> Float[Array, "*batch"]:
        """Return the mean over the agents that are present.

        Args:
            x: One value for each agent, for example its reward, ``[*batch, N]``.

        Returns:
            One value for each team, ``[*batch]``.
        """
        return x.mean(-1, where=self.present)


class TimeStep(struct.PyTreeNode):
    """Output of an environment. The flags belong to the action that led to ``obs``."""

    obs: EntityObs
    reward: Float[Array, "*batch N"]
    """Reward of each agent; zero where ``first``."""
    terminated: Bool[Array, "*batch"]
    """The episode ended in a terminal state, so its value is zero."""
    truncated: Bool[Array, "*batch"]
    """The episode was cut, for example by a time limit, so learning bootstraps."""
    first: Bool[Array, "*batch"]
    """``obs`` is the first observation of an episode."""
    info: Mapping[str, Shaped[Array, "*batch"]]
    """Further results, the entries named by ``Spec.outcomes`` among them."""

    @property
    def last(self) -> Bool[Array, "*batch"]:
        """Mask of rows that end an episode; the action taken on them is ignored."""
        return self.terminated | self.truncated

    @property
    def valid(self) -> Bool[Array, "*batch"]:
        """Mask of rows whose action has an effect."""
        return ~self.last


class Transition(struct.PyTreeNode):
    """An observation, the action taken on it, and the result of that action."""

    obs: EntityObs
    first: Bool[Array, "*batch"]
    """``obs`` is the first observation of an episode."""
    valid: Bool[Array, "*batch"]
    """False if ``obs`` ended an episode: the action had no effect, and the row is masked."""
    action: Shaped[Array, "*batch N ..."]
    """Integers ``[*batch, N]``, or vectors ``[*batch, N, A]`` in a continuous environment."""
    reward: Float[Array, "*batch N"]
    """Reward that followed ``action``."""
    terminated: Bool[Array, "*batch"]
    """``action`` led to a terminal state."""
    truncated: Bool[Array, "*batch"]
    """The episode was cut after ``action``."""
    extras: Extras
    """Outputs of the policy that learning needs."""


class Rollout(struct.PyTreeNode):
    """Input of ``System.update``: T rows of B environments, with the policy memory at both ends."""

    steps: Transition
    """Transitions, leaves ``[T, B, ...]``."""
    carry: Carry
    """Memory before row 0, leaves ``[B, ...]``."""
    last: TimeStep
    """Time step after row T-1, for the bootstrap."""
    last_carry: Carry
    """Memory after row T-1, leaves ``[B, ...]``."""
    encoded_obs: Any = None
    """Output of ``Spec.obs_codec``, ``last`` included: leaves ``[T+1, B, ...]``."""


class ResetFn(Protocol):
    """Signature of ``Env.reset``."""

    def __call__(self, key: Key, batch: int, /) -> tuple[EnvState, TimeStep]:
        """Start an episode in each of ``batch`` environments.

        Args:
            key: Random key; it determines the result.
            batch: Number of environments B.

        Returns:
            The state and the first time step of B environments.
        """
        ...


class StepFn(Protocol):
    """Signature of ``Env.step``."""

    def __call__(
        self, key: Key, state: EnvState, action: jax.Array, /
    ) -> tuple[EnvState, TimeStep]:
        """Advance each of B environments by one time step.

        An environment that ended an episode at the previous step ignores its action. It
        returns the first observation of its next episode, ``first=True`` and zero reward.

        Args:
            key: Random key of this step.
            state: State of B environments.
            action: Integers ``[B, N]``, or vectors ``[B, N, A]`` with components in [-1, 1].

        Returns:
            The next state and the next time step of B environments.
        """
        ...


class RefreshFn(Protocol):
    """Signature of ``Env.refresh``."""

    def __call__(self, key: Key, state: EnvState, /) -> EnvState:
        """Renew cached randomness. Runs once before each training rollout.

        An environment with a pool of precomputed resets draws a new pool.

        Args:
            key: Random key of this rollout.
            state: State of B environments.

        Returns:
            The state with the same structure, shapes and dtypes.
        """
        ...


def _keep_state(key: Key, state: EnvState, /) -> EnvState:
    return state


class Env(NamedTuple):
    """A batch of environments, as pure functions.

    ``jmarl.envs.batched`` builds one from the functions of a single environment.
    """

    name: str
    spec: Spec
    reset: ResetFn
    step: StepFn
    refresh: RefreshFn = _keep_state
    scene: Callable[[Any], Any] | None = None
    """``scene(state) -> jmarl.envs.scene.Scene``: picture of one environment, for videos.

    The state is that of one environment: NumPy arrays without the axis B.
    """
