"""The environment: SMAX's transitions for a batch of worlds, which reset one step late.

``make`` gives the ``Env``. ``advance`` and ``begin`` are the same transitions with one key for each world; they
consume it as ``HeuristicEnemySMAX.step_env`` and ``.reset`` of JaxMARL 0.2.0 do, so that the two can be compared.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl import config as settings
from jmarl.envs.batched import select
from jmarl.envs.battle import opponent, physics, spawn
from jmarl.envs.battle.keys import descend
from jmarl.envs.battle.observe import episode_limit, observe, spec
from jmarl.envs.battle.rules import (
    N_OWN_ACTIONS,
    STOP,
    UNITS,
    WIN_BONUS,
    BattleConfig,
    Scenario,
)
from jmarl.envs.battle.rules import scenario as scenario_of
from jmarl.envs.battle.state import Bodies, Pool, Spawn, State, bodies, present, trait
from jmarl.types import Env, Key, TimeStep


def make(name: str, **options: Any) -> Env:
    """Build ``smax_<scenario>``; ``options`` are the fields of ``BattleConfig``.

    Raises ``ValueError`` for an unknown scenario or option, ``ConfigError`` for a value of a wrong type or range.
    """
    known = [field.name for field in fields(BattleConfig)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{name} has no option {unknown[0]!r}; there are {', '.join(known)}"
        )
    return build(name, scenario_of(name), settings.build(BattleConfig, options, "env"))


def build(name: str, scenario: Scenario, config: BattleConfig) -> Env:
    """The environment of a scenario that need not be among the named ones."""
    return Env(
        name=name,
        spec=spec(scenario, config),
        reset=partial(reset, scenario, config),
        step=partial(step, scenario, config),
        refresh=partial(refresh, scenario, config),
    )


def reset(
    scenario: Scenario, config: BattleConfig, key: Key, batch: int
) -> tuple[State, TimeStep]:
    """Begin ``batch`` episodes."""
    key, pool_key = jax.random.split(key)
    state = begin(scenario, config, jax.random.split(key, batch))
    if config.reset_pool:
        state = state.replace(pool=draw_pool(scenario, config, pool_key, batch))
    # Arrays of their own for all flags: a buffer that stands in a time step twice cannot be donated.
    zeros = partial(jnp.zeros, batch)
    return state, _timestep(
        scenario,
        config,
        state,
        reward=zeros(),
        terminated=zeros(bool),
        truncated=zeros(bool),
        first=~zeros(bool),
    )


def step(
    scenario: Scenario,
    config: BattleConfig,
    key: Key,
    state: State,
    action: Int[Array, "B N"],
) -> tuple[State, TimeStep]:
    """Advance each world by a step, or begin its next episode if the last step ended one."""
    ended, pool = state.ended, state.pool
    leaves = descend(jax.random.split(key, ended.shape[0]), [(0, 0), (0, 1), (1,)])
    state = state.replace(pool=None)
    moved, outcome = _transition(scenario, config, leaves, state, action)
    if pool is None:
        fresh = lax.cond(
            jnp.any(ended), lambda: begin(scenario, config, leaves[2]), lambda: state
        )
    else:
        fresh, pool = (
            _fresh(scenario, _next_start(pool)),
            pool.replace(used=pool.used + ended),
        )
    state = select(ended, fresh, moved).replace(pool=pool)
    reward, terminated, truncated = select(
        ended, jax.tree.map(jnp.zeros_like, outcome), outcome
    )
    return state, _timestep(
        scenario,
        config,
        state,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        first=ended,
    )


def refresh(scenario: Scenario, config: BattleConfig, key: Key, state: State) -> State:
    """Draw the pool of starts anew, if there is one."""
    if state.pool is None:
        return state
    return state.replace(pool=draw_pool(scenario, config, key, state.ended.shape[0]))


def begin(scenario: Scenario, config: BattleConfig, keys: Keys[Array, "B"]) -> State:
    """New episodes, one for each key, as ``HeuristicEnemySMAX.reset`` draws them."""
    return _fresh(scenario, spawn.draw(scenario, config, keys))


def advance(
    scenario: Scenario,
    config: BattleConfig,
    keys: Keys[Array, "B"],
    state: State,
    action: Int[Array, "B N"],
) -> tuple[State, tuple[Float[Array, "B"], Bool[Array, "B"], Bool[Array, "B"]]]:
    """One step of every world, ended or not: the new state, and (team reward, terminated, truncated).

    ``keys`` is one key for each world, consumed as ``HeuristicEnemySMAX.step_env`` does.
    """
    return _transition(scenario, config, descend(keys, [(0,), (1,)]), state, action)


def _transition(
    scenario: Scenario,
    config: BattleConfig,
    keys: Keys[Array, "L B"],
    state: State,
    action: Int[Array, "B N"],
) -> tuple[State, tuple[Float[Array, "B"], Bool[Array, "B"], Bool[Array, "B"]]]:
    """``keys[0]`` is for the physics, ``keys[1]`` for the enemy."""
    n = scenario.n_allies
    before, kind = bodies(state), state.kind.T
    memory = opponent.Memory(state.goal[..., 0].T, state.goal[..., 1].T, state.quarry.T)
    allies, enemies = (
        Bodies(*(a[part] for a in before)) for part in (slice(None, n), slice(n, None))
    )
    reply, memory = opponent.decide(keys[1], allies, enemies, kind[n:], memory)
    actions = jnp.concatenate([action.T, reply])
    orders = _orders(scenario, actions)
    after = physics.fight(keys[0], before, kind, orders)
    state = state.replace(
        position=jnp.stack([after.x.T, after.y.T], axis=-1),
        health=after.health.T,
        cooldown=after.cooldown.T,
        heading=jnp.stack([orders.heading_x.T, orders.heading_y.T], axis=-1),
        attack=jnp.where(actions >= N_OWN_ACTIONS, actions, 0).T,
        goal=jnp.stack([memory.goal_x.T, memory.goal_y.T], axis=-1),
        quarry=memory.quarry.T,
        steps=state.steps + 1,
    )
    terminated = ~(
        jnp.any(after.health[:n] > 0, axis=0) & jnp.any(after.health[n:] > 0, axis=0)
    )
    truncated = ~terminated & (state.steps >= episode_limit(scenario, config))
    count = (
        present(scenario, kind[n:]).sum(axis=0)
        if scenario.choices
        else scenario.n_enemies
    )
    reward = damage_reward(
        before.health[n:], after.health[n:], trait(UNITS.health, kind[n:]), count
    )
    reward = reward + WIN_BONUS * won(scenario, state)
    return state.replace(ended=terminated | truncated), (reward, terminated, truncated)


def damage_reward(
    before: Float[Array, "M B"],
    after: Float[Array, "M B"],
    full: Float[Array, "M B"],
    count: Int[Array, "B"] | int,
) -> Float[Array, "B"]:
    """Mean loss of the health fractions of ``count`` enemies over a step, never negative.

    SMAX and SMAC take the absolute value, which would pay for an enemy that is healed.
    """
    return jnp.maximum(jnp.sum((before - after) / full, axis=0), 0.0) / count


def won(scenario: Scenario, state: State) -> Bool[Array, "B"]:
    """All enemies are dead, and an ally is alive."""
    alive = state.alive
    return jnp.any(alive[:, : scenario.n_allies], axis=1) & ~jnp.any(
        alive[:, scenario.n_allies :], axis=1
    )


def draw_pool(scenario: Scenario, config: BattleConfig, key: Key, batch: int) -> Pool:
    """``config.reset_pool`` starts for each of ``batch`` environments."""
    starts = spawn.draw(
        scenario, config, jax.random.split(key, batch * config.reset_pool)
    )
    pooled = jax.tree.map(
        lambda x: x.reshape(batch, config.reset_pool, *x.shape[1:]), starts
    )
    return Pool(pooled, jnp.zeros(batch, jnp.int32))


def _next_start(pool: Pool) -> Spawn:
    rank = pool.used % pool.spawn.kind.shape[1]
    return jax.tree.map(
        lambda starts: jax.vmap(lambda of_world, i: of_world[i])(starts, rank),
        pool.spawn,
    )


def _fresh(scenario: Scenario, start: Spawn) -> State:
    batch, units = start.kind.shape
    return State(
        position=start.position,
        health=jnp.where(
            present(scenario, start.kind), trait(UNITS.health, start.kind), 0.0
        ),
        cooldown=jnp.zeros((batch, units)),
        kind=start.kind,
        heading=jnp.zeros((batch, units, 2)),
        attack=jnp.zeros((batch, units), jnp.int32),
        goal=jnp.zeros((batch, scenario.n_enemies, 2)),
        quarry=jnp.full((batch, scenario.n_enemies), -1, jnp.int32),
        steps=jnp.zeros(batch, jnp.int32),
        ended=jnp.zeros(batch, bool),
        pool=None,
    )


def _orders(scenario: Scenario, actions: Int[Array, "U B"]) -> physics.Orders:
    """Headings and targets. Enemies number the allies from the last one backwards."""
    n = scenario.n_allies
    rank = actions - N_OWN_ACTIONS
    index = jnp.concatenate([rank[:n] + n, n - 1 - rank[n:]])
    heading = jnp.asarray(_headings())[:, jnp.minimum(actions, STOP)]
    return physics.Orders(heading[0], heading[1], jnp.where(rank >= 0, index, -1))


def _headings() -> np.ndarray:
    """Steps north, east, south, west and nowhere. SMAX rotates diagonals, and so falls short of 1 by a bit."""
    diagonal = np.float32(1 / np.sqrt(2))
    unit = diagonal * diagonal * 2
    return np.asarray([[0, unit, 0, -unit, 0], [unit, 0, -unit, 0, 0]], np.float32)


def _timestep(
    scenario: Scenario,
    config: BattleConfig,
    state: State,
    *,
    reward: Array,
    terminated: Array,
    truncated: Array,
    first: Array,
) -> TimeStep:
    return TimeStep(
        obs=observe(scenario, config, state),
        reward=jnp.repeat(reward[:, None], scenario.n_allies, axis=1),
        terminated=terminated,
        truncated=truncated,
        first=first,
        info={"won": won(scenario, state)},
    )
