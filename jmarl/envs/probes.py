"""Tiny team worlds with known values. Each catches one class of mistake by a number, not by a curve.

Values are those of the optimal policy at discount ``gamma``; a trained critic must show them.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import build, check, nearest
from jmarl.envs.batched import SingleEnv, Step, batched, count, flat_obs, flat_spec
from jmarl.types import EntityObs, Env, Key, Spec


class ProbeState(struct.PyTreeNode):
    """Actions taken so far, and what was drawn or done that later steps depend on."""

    t: Int[Array, ""]
    hidden: Any


def constant(n_agents: int = 2, reward: float = 1.0) -> Env:
    """One-step episodes that pay ``reward``: the value is ``reward``."""
    return _one_step(
        "constant", n_agents, lambda action, cue: jnp.full(n_agents, reward)
    )


def observation(n_agents: int = 2) -> Env:
    """One-step episodes in which each agent is paid the sign it sees: its value is its observation."""
    return _one_step("observation", n_agents, lambda action, cue: cue)


def bandit(n_agents: int = 2, n_actions: int = 3) -> Env:
    """One-step episodes that pay an agent 1 for the last of its actions: the value is 1."""

    def pay(action: jax.Array, cue: jax.Array) -> jax.Array:
        return (action == n_actions - 1).astype(jnp.float32)

    return _one_step("bandit", n_agents, pay, n_actions)


def matrix(
    payoff: tuple[tuple[float, ...], ...] = ((8, -12, -12), (-12, 0, 0), (-12, 0, 0)),
) -> Env:
    """A game of one move for two agents: both are paid ``payoff[a0][a1]``.

    The default is not monotonic in either agent's action (QTRAN, Son et al. 2019, table 1):
    a sum of utilities cannot represent it and settles on 0, while the optimum is 8.
    """
    rule = "must be a square table of at least one row"
    check(
        len(payoff) > 0 and all(len(row) == len(payoff) for row in payoff),
        "env.payoff",
        payoff,
        rule,
    )

    def pay(action: jax.Array, cue: jax.Array) -> jax.Array:
        return jnp.full(2, jnp.asarray(payoff, jnp.float32)[action[0], action[1]])

    return _one_step("matrix", 2, pay, len(payoff))


def xor() -> Env:
    """Two agents must differ: 1 if they do, else 0. Agents see who they are; alike ones get 1/2."""
    return matrix(((0.0, 1.0), (1.0, 0.0)))._replace(name="probe_xor")


def target(n_agents: int = 2, width: int = 1) -> Env:
    """Continuous one-step episodes that cost ``|a - target|^2``; the target is seen, the value 0."""
    spec = flat_spec(n_agents, width, width, episode_limit=1, discrete=False)

    def draw(key: Key) -> jax.Array:
        return jax.random.uniform(key, (n_agents, width), minval=-0.8, maxval=0.8)

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, -jnp.sum((action - state.hidden) ** 2, axis=-1)

    return _clocked(
        "target", spec, draw, lambda state: flat_obs(spec, state.hidden), pay
    )


def two_phase(n_agents: int = 2, length: int = 2) -> Env:
    """A reward of 1 at each of ``length`` steps, whose number is seen, then termination.

    The values are ``1 + gamma + ... + gamma^(length - 1 - t)``: [1.9, 1.0] for two steps at
    gamma 0.9. The last observation looks like the first, so a bootstrap through the end
    gives ``1 / (1 - gamma)`` instead.
    """
    return _phases("two_phase", n_agents, length, truncates=False)


def two_phase_truncated(n_agents: int = 2, length: int = 2) -> Env:
    """``two_phase`` cut by a time limit, so the bootstrap is right: every value is ``1 / (1 - gamma)``."""
    return _phases("two_phase_truncated", n_agents, length, truncates=True)


def delayed(n_agents: int = 2, length: int = 4) -> Env:
    """The first action decides what the last step pays: 1 to each agent that began with action 1.

    Each agent sees the time and its own first action, so the values are
    ``gamma^(length - 1 - t)``, or 0 after a wrong beginning.
    """
    spec = flat_spec(n_agents, length + 1, 2, length)

    def observe(state: ProbeState) -> EntityObs:
        return flat_obs(
            spec,
            jnp.concatenate(
                [_time(state, n_agents, length), state.hidden[:, None]], axis=-1
            ),
        )

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        began = jnp.where(state.t == 0, (action == 1).astype(jnp.float32), state.hidden)
        return began, jnp.where(state.t == length - 1, began, 0.0)

    return _clocked("delayed", spec, lambda key: jnp.zeros(n_agents), observe, pay)


def cue(n_agents: int = 2, length: int = 4) -> Env:
    """Remember: each agent sees a sign at the first step alone and must report it at the last.

    The team is paid the share of right reports: 1 with memory, so that the first step is worth
    ``gamma^(length - 1)``, and at most 1/2 on average without.
    """
    return _memory("cue", n_agents, length, lambda t: jnp.ones(n_agents, bool))


def death(n_agents: int = 2, length: int = 5) -> Env:
    """``cue``, in which all agents but the first are dead between the first and the last step.

    The episode goes on meanwhile, and the dead come back as the same units (``joined`` stays
    False) to report. Memory that a death resets earns at most ``(1 + 1 / n_agents) / 2``.
    """

    def alive(t: jax.Array) -> jax.Array:
        return (jnp.arange(n_agents) == 0) | (t == 0) | (t >= length - 1)

    return _memory("death", n_agents, length, alive)


def _phases(name: str, n_agents: int, length: int, truncates: bool) -> Env:
    spec = flat_spec(n_agents, length, 2, length)

    def observe(state: ProbeState) -> EntityObs:
        return flat_obs(
            spec, jnp.tile(jax.nn.one_hot(state.t % length, length), (n_agents, 1))
        )

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, jnp.ones(n_agents)

    return _clocked(name, spec, lambda key: (), observe, pay, truncates)


def _one_step(
    name: str, n_agents: int, pay: Callable[[Any, Any], jax.Array], n_actions: int = 2
) -> Env:
    """One-step episodes; an agent sees who it is, and a random sign ``cue`` that ``pay`` may use."""
    spec = flat_spec(n_agents, n_agents + 1, n_actions, episode_limit=1)

    def observe(state: ProbeState) -> EntityObs:
        return flat_obs(
            spec, jnp.concatenate([jnp.eye(n_agents), state.hidden[:, None]], axis=-1)
        )

    def step_pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        return state.hidden, pay(action, state.hidden)

    return _clocked(
        name,
        spec,
        lambda key: jax.random.rademacher(key, (n_agents,), jnp.float32),
        observe,
        step_pay,
    )


def _memory(
    name: str,
    n_agents: int,
    length: int,
    alive: Callable[[jax.Array], Bool[Array, "N"]],
) -> Env:
    """A sign seen at the first step, reported at the last by action 1 (minus) or 2 (plus); 0 does nothing."""
    spec = flat_spec(n_agents, length + 1, 3, length)

    def observe(state: ProbeState) -> EntityObs:
        living = alive(state.t)
        seen = jnp.where(state.t == 0, state.hidden, 0.0)[:, None]
        own = jnp.concatenate([_time(state, n_agents, length), seen], axis=-1)
        avail = jnp.stack([jnp.ones(n_agents, bool), living, living], axis=-1)
        return flat_obs(
            spec, jnp.where(living[:, None], own, 0.0), avail=avail, alive=living
        )

    def pay(state: ProbeState, action: jax.Array) -> tuple[Any, jax.Array]:
        right = jnp.mean(action == jnp.where(state.hidden > 0, 2, 1))
        return state.hidden, jnp.full(
            n_agents, jnp.where(state.t == length - 1, right, 0.0)
        )

    return _clocked(
        name,
        spec,
        lambda key: jax.random.rademacher(key, (n_agents,), jnp.float32),
        observe,
        pay,
    )


def _clocked(
    name: str,
    spec: Spec,
    draw: Callable[[Key], Any],
    observe: Callable[[ProbeState], EntityObs],
    pay: Callable[[ProbeState, jax.Array], tuple[Any, Float[Array, "N"]]],
    truncates: bool = False,
) -> Env:
    """A probe that ends after ``spec.episode_limit`` actions: terminated, or cut by ``batched``'s clock."""

    def reset(key: Key) -> tuple[ProbeState, EntityObs]:
        state = ProbeState(t=jnp.zeros((), jnp.int32), hidden=draw(key))
        return state, observe(state)

    def step(key: Key, state: ProbeState, action: jax.Array) -> tuple[ProbeState, Step]:
        hidden, reward = pay(state, action)
        state = ProbeState(t=state.t + 1, hidden=hidden)
        ended = (state.t >= spec.episode_limit) & (not truncates)
        return state, Step(observe(state), reward, ended)

    return batched(SingleEnv(f"probe_{name}", spec, reset, step))


def _time(state: ProbeState, n_agents: int, length: int) -> Float[Array, "N T"]:
    return jnp.tile(jax.nn.one_hot(state.t, length), (n_agents, 1))


PROBES: dict[str, Callable[..., Env]] = {
    "probe_constant": constant,
    "probe_observation": observation,
    "probe_bandit": bandit,
    "probe_matrix": matrix,
    "probe_xor": xor,
    "probe_target": target,
    "probe_two_phase": two_phase,
    "probe_two_phase_truncated": two_phase_truncated,
    "probe_delayed": delayed,
    "probe_cue": cue,
    "probe_death": death,
}


def make(name: str, **options: Any) -> Env:
    """Build the probe ``name``, for the registry; raises ``ConfigError`` for an option that is unknown or wrong."""
    probe = PROBES[name]
    kinds = typing.get_type_hints(probe)
    kinds.pop("return")
    return probe(
        **{option: _option(kinds, option, value) for option, value in options.items()}
    )


def _option(kinds: dict[str, Any], option: str, value: Any) -> Any:
    """``value`` in the type of the option; whole numbers are sizes, so at least 1."""
    near = nearest(option, kinds)
    check(
        option in kinds,
        f"env.{option}",
        value,
        f"unknown option; the nearest valid one is {near}",
    )
    return (
        count(option, value)
        if kinds[option] is int
        else build(kinds[option], value, f"env.{option}")
    )
