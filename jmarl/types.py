"""The vocabulary: what every environment, network and system speaks.

Axes stand in one order everywhere: **T** time, **B** environment, **N** agent, **E** entity,
**F** feature, **A** action. Arrays are time-major. A leading ``...`` in a shape stands for
``B`` when acting and for ``T B`` when learning.

Episode ends. An environment resets one step *late* (next-step reset): the observation that
ends an episode is an ordinary row, on which the action is ignored and which every loss and
statistic masks. ``TimeStep`` carries the flags of the action that *led* to its observation;
``Transition`` carries those of the action *taken* on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped


Key = PRNGKeyArray
Params = Any
Carry = Any
Extras = Any
EnvState = Any
Metrics = dict[str, Float[Array, "..."]]


class Group(NamedTuple):
    """A kind of entity: ``allies``, ``enemies``, ``landmarks``, ``food``.

    ``size`` and ``width`` are those of the rows that one agent sees, ``state_size`` and
    ``state_width`` those of the central state (an agent is an entity of the state, but no
    row of its own observation, so ``allies`` has ``state_size == size + 1``).
    """

    name: str
    size: int
    width: int
    state_size: int
    state_width: int


class ObsCodec(Protocol):
    """How observations are made again from less than themselves, which a replay keeps in their place.

    Hashable and equal by value, because a ``Spec`` holds it.
    """

    def encode(self, state: EnvState, /) -> Any:
        """What ``observe`` needs of a batch of states; every leaf has a leading B."""
        ...

    def decode(self, encoded_obs: Any, /) -> EntityObs:
        """The observations of the time step that came with that state."""
        ...

    def empty(self, *batch: int) -> Any:
        """Zeros in the shape of a encoded_obs."""
        ...


class Spec(NamedTuple):
    """The static shape of a world. Hashable, so it can be closed over or be a static argument.

    ``action_target`` has length ``n_actions``: -1 for an action on oneself or on nothing in
    particular, else the entity *slot of the observer* that the action is aimed at. Slots
    count through ``groups`` in order. The flat order of actions is own | enemies | allies.
    A continuous world has ``discrete=False``; then ``n_actions`` is the width of the action
    vector, each component in [-1, 1], and ``action_target`` is all -1.
    """

    n_agents: int
    n_actions: int
    own_width: int
    groups: tuple[Group, ...]
    global_width: int
    episode_limit: int
    action_target: tuple[int, ...]
    n_unit_classes: int = 1
    discrete: bool = True
    outcomes: tuple[str, ...] = ()
    """Names of the entries of ``TimeStep.info`` that judge an episode as it ends (``won``)."""
    obs_codec: ObsCodec | None = None
    fixed_team: bool = True
    """False: an episode may lack some of the agents (``EntityObs.present``), because teams have several sizes."""

    @property
    def n_slots(self) -> int:
        """Entities that one agent sees, over all groups."""
        return sum(g.size for g in self.groups)

    @property
    def action_kind(self) -> tuple[int, ...]:
        """For each action, its rank among the actions aimed at the same target (0, 1, ...)."""
        seen: dict[int, int] = {}
        kinds = []
        for target in self.action_target:
            kinds.append(seen.get(target, 0))
            seen[target] = kinds[-1] + 1
        return tuple(kinds)


class CentralState(struct.PyTreeNode):
    """What a central critic or mixer may read: the world, from nobody's point of view."""

    features: Float[Array, "*batch Fs"]
    rows: tuple[Float[Array, "*batch E F"], ...]
    mask: tuple[Bool[Array, "*batch E"], ...]


class EntityObs(struct.PyTreeNode):
    """Observations of all agents as entities; a flat vector is derived from it, never the reverse.

    ``rows`` and ``mask`` are tuples aligned with ``Spec.groups``. A row whose mask is False
    (dead, unseen, padding) is all zero, and no result may depend on it.
    """

    own: Float[Array, "*batch N F"]
    rows: tuple[Float[Array, "*batch N E F"], ...]
    mask: tuple[Bool[Array, "*batch N E"], ...]
    avail: Bool[Array, "*batch N A"]
    alive: Bool[Array, "*batch N"]
    joined: Bool[Array, "*batch N"]
    unit_class: Int[Array, "*batch N"]
    state: CentralState

    @property
    def present(self) -> Bool[Array, "*batch N"]:
        """The agents that the episode has: one that is absent is not alive, and has no available action either."""
        return self.alive | self.avail.any(-1)

    def team_mean(self, x: Float[Array, "*batch N"]) -> Float[Array, "*batch"]:
        """The mean over the agents that are present: the team's reward, of theirs."""
        return x.mean(-1, where=self.present)


class TimeStep(struct.PyTreeNode):
    """What the environment returns; the flags are those of the action that led here."""

    obs: EntityObs
    reward: Float[Array, "*batch N"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    first: Bool[Array, "*batch"]
    info: Mapping[str, Shaped[Array, "*batch"]]

    @property
    def last(self) -> Bool[Array, "*batch"]:
        """This observation ends an episode; the action taken on it is ignored."""
        return self.terminated | self.truncated

    @property
    def valid(self) -> Bool[Array, "*batch"]:
        """An action taken on this observation counts."""
        return ~self.last


class Transition(struct.PyTreeNode):
    """One row of experience: an observation, the action taken on it, and what that led to."""

    obs: EntityObs
    first: Bool[Array, "*batch"]
    valid: Bool[Array, "*batch"]
    action: Shaped[Array, "*batch N ..."]
    reward: Float[Array, "*batch N"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    extras: Extras


class Rollout(struct.PyTreeNode):
    """What ``System.update`` gets: T rows of B environments, and both ends of the memory."""

    steps: Transition
    carry: Carry
    """Memory before row 0, each leaf with a leading B."""
    last: TimeStep
    """The time step after row T-1, for the bootstrap."""
    last_carry: Carry
    encoded_obs: Any = None
    """What ``Spec.obs_codec`` makes the observations again from, those of ``last`` too: leaves ``[T+1, B, ...]``."""


class Env(NamedTuple):
    """A batch of worlds, as pure functions. Every leaf of the state has a leading B.

    ``reset(key, B) -> (state, TimeStep)`` begins B episodes.
    ``step(key, state, action[B, N, ...]) -> (state, TimeStep)`` advances each world by one
    step, except one whose last time step ended an episode: there the action is ignored and
    the next episode begins (``first=True``, zero reward).
    ``refresh(key, state) -> state`` runs once before each training rollout; a world that
    keeps a pool of pre-drawn resets draws it anew here.
    """

    name: str
    spec: Spec
    reset: Callable[[Key, int], tuple[EnvState, TimeStep]]
    step: Callable[[Key, EnvState, jax.Array], tuple[EnvState, TimeStep]]
    refresh: Callable[[Key, EnvState], EnvState] = lambda key, state: state
