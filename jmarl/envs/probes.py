"""Probes: tiny environments with known values, each of which detects one class of error.

The stated values are those of the optimal policy at discount ``gamma``. A trained critic must
reproduce them.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import build, check, suggest
from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.options import parse_count
from jmarl.types import EntityObs, Env, Key, Spec


class ProbeState(struct.PyTreeNode):
    """State of one probe."""

    t: Int[Array, ""]
    """Actions taken in this episode."""
    hidden: Any
    """Random draws and earlier actions that later steps depend on."""


def constant(n_agents: int = 2, reward: float = 1.0) -> Env:
    """Build one-step episodes with a constant reward: the value is ``reward``."""
    return _one_step(
        "constant", n_agents, lambda action, sign: jnp.full(n_agents, reward)
    )


def observation(n_agents: int = 2) -> Env:
    """Build one-step episodes that pay each agent the sign it observes: the value is the sign."""
    return _one_step("observation", n_agents, lambda action, sign: sign)


def bandit(n_agents: int = 2, n_actions: int = 3) -> Env:
    """Build one-step episodes that pay an agent 1 for its last action: the value is 1."""

    def pay(action: jax.Array, sign: jax.Array) -> jax.Array:
        return (action == n_actions - 1).astype(jnp.float32)

    return _one_step("bandit", n_agents, pay, n_actions)


def matrix(
    payoff: tuple[tuple[float, ...], ...] = ((8, -12, -12), (-12, 0, 0), (-12, 0, 0)),
) -> Env:
    """Build a one-step game for two agents, which are both paid ``payoff[a0][a1]``.

    The default is not monotonic in either agent's action (QTRAN, Son et al. 2019, table 1). A sum
    of utilities cannot represent it and settles on 0, but the optimum is 8.
    """
    is_square = len(payoff) > 0 and all(len(row) == len(payoff) for row in payoff)
    rule = "must be a square table of at least one row"
    check(is_square, "env.payoff", payoff, rule)

    def pay(action: jax.Array, sign: jax.Array) -> jax.Array:
        table = jnp.asarray(payoff, jnp.float32)
        return jnp.full(2, table[action[0], action[1]])

    return _one_step("matrix", 2, pay, len(payoff))


def xor() -> Env:
    """Build a one-step game that pays two agents 1 if their actions differ, else 0.

    Agents observe their index. Two equal policies get 1/2.
    """
    return matrix(((0.0, 1.0), (1.0, 0.0)))._replace(name="probe_xor")


def xor_hidden() -> Env:
    """Build the game of ``xor`` without the index: both agents observe the same constant.

    Equal policies with probability p of action 1 get ``2 p (1 - p)``. That is at most 1/2, and 0 if
    they are deterministic. Separate policies get 1.
    """
    spec = flat_spec(2, 1, 2, episode_limit=1)

    def observe(state: ProbeState) -> EntityObs:
        return flat_obs(spec, jnp.ones((2, 1)))

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        differ = (action[0] != action[1]).astype(jnp.float32)
        return state.hidden, jnp.full(2, differ)

    return _fixed_length("xor_hidden", spec, lambda key: (), observe, pay)


def target(n_agents: int = 2, width: int = 1) -> Env:
    """Build continuous one-step episodes with reward ``-|a - target|^2``.

    The target is observed, so the value is 0.
    """
    spec = flat_spec(n_agents, width, width, episode_limit=1, discrete=False)

    def draw(key: Key) -> jax.Array:
        return jax.random.uniform(key, (n_agents, width), minval=-0.8, maxval=0.8)

    def observe(state: ProbeState) -> EntityObs:
        return flat_obs(spec, state.hidden)

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, -jnp.sum((action - state.hidden) ** 2, axis=-1)

    return _fixed_length("target", spec, draw, observe, pay)


def two_phase(n_agents: int = 2, length: int = 2) -> Env:
    """Build episodes with a reward of 1 at each of ``length`` steps, then termination.

    The step number is observed. The values are ``1 + gamma + ... + gamma^(length - 1 - t)``:
    [1.9, 1.0] for two steps at gamma 0.9. The last observation equals the first, so a bootstrap
    across the end of the episode gives ``1 / (1 - gamma)`` instead.
    """
    return _phases("two_phase", n_agents, length, truncates=False)


def two_phase_truncated(n_agents: int = 2, length: int = 2) -> Env:
    """Build ``two_phase`` with truncation instead of termination.

    The bootstrap is correct here, so every value is ``1 / (1 - gamma)``.
    """
    return _phases("two_phase_truncated", n_agents, length, truncates=True)


def delayed(n_agents: int = 2, length: int = 4) -> Env:
    """Build episodes whose last step pays 1 to each agent that took action 1 at the first step.

    Each agent observes the time and its own first action. The values are
    ``gamma^(length - 1 - t)``, or 0 after a wrong first action.
    """
    spec = flat_spec(n_agents, length + 1, 2, length)

    def observe(state: ProbeState) -> EntityObs:
        time = _one_hot_time(state, n_agents, length)
        return flat_obs(spec, jnp.concatenate([time, state.hidden[:, None]], axis=-1))

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        is_first = state.t == 0
        chose_1 = (action == 1).astype(jnp.float32)
        first_action = jnp.where(is_first, chose_1, state.hidden)
        return first_action, jnp.where(state.t == length - 1, first_action, 0.0)

    return _fixed_length("delayed", spec, lambda key: jnp.zeros(n_agents), observe, pay)


def cue(n_agents: int = 2, length: int = 4) -> Env:
    """Build a memory task: observe a sign only at the first step, report it at the last.

    The team is paid the fraction of correct reports. With memory that is 1, so the value of the
    first step is ``gamma^(length - 1)``. Without memory it is at most 1/2 on average.
    """
    return _memory_task("cue", n_agents, length, lambda t: jnp.ones(n_agents, bool))


def death(n_agents: int = 2, length: int = 5) -> Env:
    """Build ``cue`` with agents that are dead between the first and the last step.

    All agents but the first die. The episode continues, and the same units revive (``joined``
    stays False) to report. Memory that a death resets earns at most ``(1 + 1 / n_agents) / 2``.
    """

    def alive(t: jax.Array) -> jax.Array:
        return (jnp.arange(n_agents) == 0) | (t == 0) | (t >= length - 1)

    return _memory_task("death", n_agents, length, alive)


def classes(n_classes: int = 2, length: int = 3) -> Env:
    """Build a task for two agents of each class, which report a sign by actions of their class.

    The sign is observed. An agent of class c reports minus by action ``1 + 2c`` and plus by
    ``2 + 2c``. All agents but the first are dead at the last step, where only action 0 is left to
    them. The reward is the share of correct reports of the living agents, so the values are
    ``1 + gamma + ... + gamma^(length - 1 - t)``.
    """
    n_agents = 2 * n_classes
    unit_class = jnp.arange(n_agents) % n_classes
    reports = jnp.eye(n_classes, dtype=bool).repeat(2, axis=1)
    able = jnp.concatenate([jnp.ones((n_classes, 1), bool), reports], axis=-1)
    spec = flat_spec(n_agents, n_classes + 1, 1 + 2 * n_classes, length)
    rows = tuple(tuple(row) for row in able.tolist())
    shown = tuple(range(n_classes))
    spec = spec._replace(
        n_unit_classes=n_classes, class_actions=rows, class_features=shown
    )
    kind = jax.nn.one_hot(unit_class, n_classes)

    def living(state: ProbeState) -> Bool[Array, "N"]:
        return (jnp.arange(n_agents) == 0) | (state.t < length - 1)

    def observe(state: ProbeState) -> EntityObs:
        alive = living(state)
        own = jnp.concatenate([kind, state.hidden[:, None]], axis=-1)
        own = jnp.where(alive[:, None], own, 0.0)
        avail = able[unit_class] & (alive[:, None] | (jnp.arange(spec.n_actions) == 0))
        obs = flat_obs(spec, own, avail=avail, alive=alive)
        return obs.replace(unit_class=unit_class)

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        correct = action == 1 + 2 * unit_class + (state.hidden > 0)
        share = jnp.mean(correct, where=living(state))
        return state.hidden, jnp.full(n_agents, share)

    return _fixed_length("classes", spec, _random_signs(n_agents), observe, pay)


def _phases(name: str, n_agents: int, length: int, truncates: bool) -> Env:
    spec = flat_spec(n_agents, length, 2, length)

    def observe(state: ProbeState) -> EntityObs:
        phase = jax.nn.one_hot(state.t % length, length)
        return flat_obs(spec, jnp.tile(phase, (n_agents, 1)))

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, jnp.ones(n_agents)

    return _fixed_length(name, spec, lambda key: (), observe, pay, truncates)


def _one_step(
    name: str, n_agents: int, pay: Callable[[Any, Any], jax.Array], n_actions: int = 2
) -> Env:
    """Build one-step episodes in which an agent observes its index and a random sign."""
    spec = flat_spec(n_agents, n_agents + 1, n_actions, episode_limit=1)

    def observe(state: ProbeState) -> EntityObs:
        index = jnp.eye(n_agents)
        return flat_obs(spec, jnp.concatenate([index, state.hidden[:, None]], axis=-1))

    def step_pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, pay(action, state.hidden)

    return _fixed_length(name, spec, _random_signs(n_agents), observe, step_pay)


def _memory_task(
    name: str,
    n_agents: int,
    length: int,
    alive: Callable[[jax.Array], Bool[Array, "N"]],
) -> Env:
    """Build ``cue``: action 1 reports a minus, action 2 a plus, action 0 is a no-op."""
    spec = flat_spec(n_agents, length + 1, 3, length)

    def observe(state: ProbeState) -> EntityObs:
        is_alive = alive(state.t)
        sign = jnp.where(state.t == 0, state.hidden, 0.0)[:, None]
        time = _one_hot_time(state, n_agents, length)
        own = jnp.concatenate([time, sign], axis=-1)
        avail = jnp.stack([jnp.ones(n_agents, bool), is_alive, is_alive], axis=-1)
        own = jnp.where(is_alive[:, None], own, 0.0)
        return flat_obs(spec, own, avail=avail, alive=is_alive)

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        correct = jnp.mean(action == jnp.where(state.hidden > 0, 2, 1))
        reward = jnp.where(state.t == length - 1, correct, 0.0)
        return state.hidden, jnp.full(n_agents, reward)

    return _fixed_length(name, spec, _random_signs(n_agents), observe, pay)


def _fixed_length(
    name: str,
    spec: Spec,
    draw: Callable[[Key], Any],
    observe: Callable[[ProbeState], EntityObs],
    pay: Callable[[ProbeState, jax.Array], tuple[Any, Float[Array, "N"]]],
    truncates: bool = False,
) -> Env:
    """Build a probe whose episodes end after ``spec.episode_limit`` actions.

    ``draw`` samples the hidden state, and ``pay`` returns the next hidden state and the rewards.
    Episodes terminate, or are truncated by ``batched`` if ``truncates``.
    """

    def reset(key: Key) -> tuple[ProbeState, EntityObs]:
        state = ProbeState(t=jnp.zeros((), jnp.int32), hidden=draw(key))
        return state, observe(state)

    def step(key: Key, state: ProbeState, action: jax.Array) -> tuple[ProbeState, Step]:
        hidden, reward = pay(state, action)
        state = ProbeState(t=state.t + 1, hidden=hidden)
        terminated = (state.t >= spec.episode_limit) & (not truncates)
        return state, Step(observe(state), reward, terminated)

    return batched(SingleEnv(f"probe_{name}", spec, reset, step))


def _random_signs(n_agents: int) -> Callable[[Key], Float[Array, "N"]]:
    return lambda key: jax.random.rademacher(key, (n_agents,), jnp.float32)


def _one_hot_time(state: ProbeState, n_agents: int, length: int) -> Float[Array, "N T"]:
    return jnp.tile(jax.nn.one_hot(state.t, length), (n_agents, 1))


PROBES: dict[str, Callable[..., Env]] = {
    "probe_constant": constant,
    "probe_observation": observation,
    "probe_bandit": bandit,
    "probe_matrix": matrix,
    "probe_xor": xor,
    "probe_xor_hidden": xor_hidden,
    "probe_target": target,
    "probe_two_phase": two_phase,
    "probe_two_phase_truncated": two_phase_truncated,
    "probe_delayed": delayed,
    "probe_cue": cue,
    "probe_death": death,
    "probe_classes": classes,
}


def make(name: str, **options: Any) -> Env:
    """Build a probe by its name.

    Args:
        name: A key of ``PROBES``.
        **options: Arguments of the probe; integers must be at least 1.

    Returns:
        A batch of environments as pure functions.

    Raises:
        ConfigError: If an option is unknown or has a wrong type or value.
    """
    probe = PROBES[name]
    types = typing.get_type_hints(probe)
    types.pop("return")
    parsed = {
        option: _parse_option(types, option, value) for option, value in options.items()
    }
    return probe(**parsed)


def _parse_option(types: dict[str, Any], option: str, value: Any) -> Any:
    key = f"env.{option}"
    fix = suggest(option, types, f"options: {', '.join(types) or 'none'}")
    check(option in types, key, value, f"unknown option; {fix}")
    if types[option] is int:
        return parse_count(option, value)
    return build(types[option], value, key)
