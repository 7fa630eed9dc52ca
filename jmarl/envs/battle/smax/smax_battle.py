"""Battles of SMAX: transitions equal to ``HeuristicEnemySMAX`` of JaxMARL 0.2.0.

Each option of ``BattleConfig`` changes one of its peculiarities.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl import config as settings
from jmarl.envs import next_step
from jmarl.envs.battle.drawing import scene
from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.scenario import BattleConfig, Scenario, get_scenario
from jmarl.envs.battle.smax import smax_opponent, smax_physics
from jmarl.envs.battle.smax.smax_observe import episode_limit, observe, spec
from jmarl.envs.battle.smax.smax_starts import draw_spawns
from jmarl.envs.battle.smax.smax_ticks import Orders
from jmarl.envs.battle.state import (
    Bodies,
    Spawn,
    State,
    present,
    to_bodies,
    trait,
)
from jmarl.envs.keys import Path
from jmarl.envs.next_step import Engine, Outcome
from jmarl.types import Env


# Paths of SMAX's keys below the key of a step; see ``keys.derive_keys``.
PHYSICS: Path = (0, 0)
ENEMY_POLICY: Path = (0, 1)
RESET: Path = (1,)


def make(name: str, **options: Any) -> Env:
    """Build the environment ``smax_<scenario>``.

    Args:
        name: environment name, for example ``smax_3m`` or ``smax_5v5``.
        **options: fields of ``BattleConfig``.

    Raises:
        ValueError: the scenario or an option is unknown.
        ConfigError: the value of an option has a wrong type or range.
    """
    known = [field.name for field in fields(BattleConfig)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{name} has no option {unknown[0]!r}; expected one of {', '.join(known)}"
        )
    scenario = get_scenario(name)
    return build(name, scenario, settings.build(BattleConfig, options, "env"))


def build(name: str, scenario: Scenario, config: BattleConfig) -> Env:
    """Build the environment of any scenario, named in ``scenario`` or not."""
    return next_step.build(name, make_engine(scenario, config), config.reset_pool)


def make_engine(scenario: Scenario, config: BattleConfig) -> Engine:
    """Return the functions of a scenario."""
    return Engine(
        spec=spec(scenario, config),
        draw_starts=partial(draw_spawns, scenario, config),
        first_state=partial(state_from_spawn, scenario),
        transition=partial(transition, scenario, config),
        observe=partial(observe, scenario, config),
        outcomes=lambda state: {"won": allies_won(scenario, state)},
        scene=partial(scene, scenario),
        paths=(PHYSICS, ENEMY_POLICY),
        reset_path=RESET,
    )


def state_from_spawn(scenario: Scenario, start: Spawn) -> State:
    """Return the first state of an episode with a given start."""
    batch, units = start.kind.shape
    exists = present(scenario, start.kind)
    full = trait(scenario.rules, "health", start.kind)
    return State(
        position=start.position,
        health=jnp.where(exists, full, 0.0),
        cooldown=jnp.zeros((batch, units)),
        kind=start.kind,
        heading=jnp.zeros((batch, units, 2)),
        attack=jnp.zeros((batch, units), jnp.int32),
        destination=jnp.zeros((batch, scenario.n_enemies, 2)),
        last_target=jnp.full((batch, scenario.n_enemies), -1, jnp.int32),
        steps=jnp.zeros(batch, jnp.int32),
        ended=jnp.zeros(batch, bool),
        pool=None,
    )


def transition(
    scenario: Scenario,
    config: BattleConfig,
    keys: Keys[Array, "L B"],
    state: State,
    action: Int[Array, "B N"],
) -> tuple[State, Outcome]:
    """Advance every environment by one step, whether its episode has ended or not.

    Args:
        scenario: teams and limits.
        config: options.
        keys: ``keys[0]`` for the physics and ``keys[1]`` for the enemy policy, one key per
            environment. With the keys at ``(0,)`` and ``(1,)`` below a key, the random draws equal
            those of ``HeuristicEnemySMAX.step_env`` with that key.
        state: current state.
        action: actions of the allies.

    Returns:
        The next state and the outcome of the step.
    """
    n, rules = scenario.n_allies, scenario.rules
    before = to_bodies(state)
    kind = state.kind.T
    memory = _enemy_memory(state)
    allies = Bodies(*(x[:n] for x in before))
    enemies = Bodies(*(x[n:] for x in before))
    reply, memory = smax_opponent.choose_actions(
        rules, keys[1], allies, enemies, kind[n:], memory
    )
    actions = jnp.concatenate([action.T, reply])  # [U, B]
    orders = _orders(scenario, actions)
    after = smax_physics.simulate(rules, keys[0], before, kind, orders)
    state = _advanced(rules, state, after, orders, actions, memory)
    outcome = _outcome(scenario, config, state, (before, after), kind)
    return state.replace(ended=outcome.terminated | outcome.truncated), outcome


def _enemy_memory(state: State) -> smax_opponent.Memory:
    return smax_opponent.Memory(
        destination_x=state.destination[..., 0].T,
        destination_y=state.destination[..., 1].T,
        last_target=state.last_target.T,
    )


def _advanced(
    rules: Rules,
    state: State,
    after: Bodies,
    orders: Orders,
    actions: Int[Array, "U B"],
    memory: smax_opponent.Memory,
) -> State:
    """Write the results of a step back into the batch-first state."""
    return state.replace(
        position=_points(after.x, after.y),
        health=after.health.T,
        cooldown=after.cooldown.T,
        heading=_points(orders.heading_x, orders.heading_y),
        attack=jnp.where(actions >= rules.n_own_actions, actions, 0).T,
        destination=_points(memory.destination_x, memory.destination_y),
        last_target=memory.last_target.T,
        steps=state.steps + 1,
    )


def _points(x: Float[Array, "U B"], y: Float[Array, "U B"]) -> Float[Array, "B U 2"]:
    return jnp.stack([x.T, y.T], axis=-1)


def _outcome(
    scenario: Scenario,
    config: BattleConfig,
    state: State,
    bodies: tuple[Bodies, Bodies],
    kind: Int[Array, "U B"],
) -> Outcome:
    """Return the outcome of the step that led to ``state``, from the bodies before and after."""
    before, after = bodies
    n = scenario.n_allies
    allies_left = jnp.any(after.health[:n] > 0, axis=0)
    enemies_left = jnp.any(after.health[n:] > 0, axis=0)
    terminated = ~(allies_left & enemies_left)
    truncated = ~terminated & (state.steps >= episode_limit(scenario, config))
    count = scenario.n_enemies
    if scenario.choices:
        count = present(scenario, kind[n:]).sum(axis=0)
    enemies_before = before.health[n:]
    enemies_after = after.health[n:]
    full = trait(scenario.rules, "health", kind[n:])
    reward = damage_reward(enemies_before, enemies_after, full, count)
    reward = reward + scenario.rules.win_bonus * allies_won(scenario, state)
    rewards = jnp.repeat(reward[:, None], n, axis=1)
    return Outcome(rewards, terminated, truncated)


def damage_reward(
    before: Float[Array, "M B"],
    after: Float[Array, "M B"],
    full: Float[Array, "M B"],
    count: Int[Array, "B"] | int,
) -> Float[Array, "B"]:
    """Return the mean fraction of health that ``count`` enemies lost in a step, at least 0.

    Differs from SMAX and SMAC: they take the absolute value, which would reward healing an enemy.
    """
    lost = jnp.sum((before - after) / full, axis=0)
    return jnp.maximum(lost, 0.0) / count


def allies_won(scenario: Scenario, state: State) -> Bool[Array, "B"]:
    """Return whether all enemies are dead and an ally is alive."""
    n = scenario.n_allies
    alive = state.alive
    allies_left = jnp.any(alive[:, :n], axis=1)
    enemies_left = jnp.any(alive[:, n:], axis=1)
    return allies_left & ~enemies_left


def _orders(scenario: Scenario, actions: Int[Array, "U B"]) -> Orders:
    """Convert actions to headings and targets."""
    n = scenario.n_allies
    rules = scenario.rules
    rank = actions - rules.n_own_actions
    # Enemies number the allies from the last one backwards.
    index = jnp.concatenate([rank[:n] + n, n - 1 - rank[n:]])
    n_actions = rules.n_own_actions + max(n, scenario.n_enemies)
    x, y = rules.headings(n_actions)
    target = jnp.where(rank >= 0, index, -1)
    return Orders(jnp.asarray(x)[actions], jnp.asarray(y)[actions], target)
