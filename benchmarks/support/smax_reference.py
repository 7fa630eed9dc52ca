"""Comparison of a battle with JaxMARL's SMAX of the same scenario.

``compare`` steps both from JaxMARL's state with the same keys and actions (teacher forcing, so
that rounding errors do not accumulate) over whole episodes and returns the differences. JaxMARL
is imported only when ``reference`` is called.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl.envs.batched import select
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenario import BattleConfig, Scenario
from jmarl.envs.battle.smax.smax_battle import allies_won, state_from_spawn, transition
from jmarl.envs.battle.smax.smax_observe import observe
from jmarl.envs.battle.smax.smax_starts import draw_spawns
from jmarl.envs.battle.state import State, trait
from jmarl.envs.keys import derive_keys
from jmarl.envs.next_step import Outcome
from jmarl.types import EntityObs, Key


EAST = 1


class Differences(NamedTuple):
    """Differences between a battle and SMAX, and counts of the compared events.

    The first five fields are largest absolute differences, the next three count unequal entries.
    The names are keys of the records.
    """

    start: Float[Array, ""]
    """Of the first states of episodes; types are compared as numbers."""
    observation: Float[Array, ""]
    world: Float[Array, ""]
    """Of SMAX's ``world_state``."""
    reward: Float[Array, ""]
    state: Float[Array, ""]
    available: Int[Array, ""]
    alive: Int[Array, ""]
    ended: Int[Array, ""]
    """Of four flags: ended, terminated, truncated, won."""
    steps: Int[Array, ""]
    wins: Int[Array, ""]
    losses: Int[Array, ""]
    timeouts: Int[Array, ""]


class _Step(NamedTuple):
    """One teacher-forced step of SMAX: its state, the keys and actions, and its results."""

    keys: Keys[Array, "B"]
    state: Any
    action: Int[Array, "B N"]
    available: Bool[Array, "B N A"]
    next_obs: dict[str, Array]
    next_state: Any
    reward: dict[str, Array]
    done: dict[str, Array]


def reference(scenario: Scenario) -> Any:
    """Build ``HeuristicEnemySMAX`` of a scenario.

    Call it outside of jit, because JaxMARL creates arrays when it is imported.
    """
    from jaxmarl.environments.smax import HeuristicEnemySMAX
    from jaxmarl.environments.smax import Scenario as SmaxScenario

    types = jnp.asarray(scenario.allies + scenario.enemies, jnp.uint8)
    random = scenario.randomized
    smax_scenario = SmaxScenario(
        types, scenario.n_allies, scenario.n_enemies, random, random
    )
    return HeuristicEnemySMAX(scenario=smax_scenario, max_steps=scenario.limit)


def reset(smax: Any, key: Key, batch: int) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return states of new episodes, with observations, zero rewards, and flags of no end."""
    obs, state = jax.vmap(smax.reset)(jax.random.split(key, batch))
    reward = {agent: jnp.zeros(batch) for agent in smax.agents}
    done = {agent: jnp.zeros(batch, bool) for agent in (*smax.agents, "__all__")}
    return state, (obs, reward, done)


def step(
    smax: Any, key: Key, state: Any, action: Int[Array, "B N"]
) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return the states after a step, with observations, rewards, and flags of ends.

    Args:
        smax: JaxMARL's environment. Its step resets by itself.
        key: Random key.
        state: States of the environments.
        action: Actions of all agents.
    """
    actions = {agent: action[:, i] for i, agent in enumerate(smax.agents)}
    keys = jax.random.split(key, len(action))
    obs, state, reward, done, _ = jax.vmap(smax.step)(keys, state, actions)
    return state, (obs, reward, done)


def from_smax(smax_state: Any) -> State:
    """Convert a batch of JaxMARL's states to a battle state."""
    inner = smax_state.state
    memory = smax_state.enemy_policy_state
    return State(
        position=inner.unit_positions,
        health=inner.unit_health,
        cooldown=inner.unit_weapon_cooldowns,
        kind=inner.unit_types.astype(jnp.int32),
        heading=inner.prev_movement_actions,
        attack=inner.prev_attack_actions,
        destination=memory.default_target,
        last_target=memory.last_attacked_enemy,
        steps=inner.step,
        ended=inner.done,
        pool=None,
    )


def initial_state(
    scenario: Scenario, config: BattleConfig, keys: Keys[Array, "B"]
) -> State:
    """Return the first state of one episode per key, as drawn by ``HeuristicEnemySMAX.reset``."""
    return state_from_spawn(scenario, draw_spawns(scenario, config, keys))


def advance(
    scenario: Scenario,
    config: BattleConfig,
    keys: Keys[Array, "B"],
    state: State,
    action: Int[Array, "B N"],
) -> tuple[State, Outcome]:
    """Advance every environment by one step, with the keys of ``HeuristicEnemySMAX.step_env``."""
    leaves = derive_keys(keys, [(0,), (1,)])
    return transition(scenario, config, leaves, state, action)


def flat_observation(obs: EntityObs) -> Float[Array, "B N F"]:
    """Return SMAX's ``unit_list`` vector of each ally.

    The observations must have been built with ``last_targeted``.
    """
    batch, n_agents, _ = obs.own.shape
    rows = [group.reshape(batch, n_agents, -1) for group in obs.rows]
    return jnp.concatenate([*rows, obs.own], axis=-1)


def world_state(scenario: Scenario, state: State) -> Float[Array, "B F"]:
    """Return SMAX's global state, including raw positions, cooldowns and type ids."""
    health = state.health / trait(SMAX, "health", state.kind)
    kind = jax.nn.one_hot(state.kind, SMAX.n_unit_types)
    cooldown = state.cooldown[..., None]
    columns = [health[..., None], state.position, cooldown, kind]
    rows = jnp.concatenate(columns, axis=-1)  # [B, U, F]
    rows = jnp.where(state.alive[..., None], rows, 0.0)
    flat = rows.reshape(rows.shape[0], -1)
    is_enemy = jnp.arange(scenario.n_units) >= scenario.n_allies
    teams = jnp.broadcast_to(is_enemy.astype(jnp.float32), state.kind.shape)
    return jnp.concatenate([flat, teams, state.kind], axis=-1)


def compare(
    scenario: Scenario, smax: Any, key: Key, batch: int, length: int
) -> Differences:
    """Compare ``length`` steps of ``batch`` environments with the same keys in both simulators.

    Ended environments are reset. Half of the environments take random available actions. In the
    other half the allies walk east and attack the first enemy in range, so that some episodes are
    won.

    Args:
        scenario: the teams.
        smax: ``reference(scenario)``.
        key: source of all keys and actions.
        batch: number of environments.
        length: number of steps.

    Returns:
        The largest differences and the summed counts over all steps.
    """
    reset = jax.vmap(lambda key: smax.reset(key)[1])

    def body(
        carry: tuple[Any, Array], key: Key
    ) -> tuple[tuple[Any, Array], Differences]:
        state, ended = carry
        action_key, step_key, reset_key = jax.random.split(key, 3)
        keys = jax.random.split(step_key, batch)
        reset_keys = jax.random.split(reset_key, batch)
        fresh = reset(reset_keys)
        step = _smax_step(smax, action_key, keys, select(ended, fresh, state))
        differences = _differences(scenario, smax, step)
        start = initial_state(scenario, BattleConfig(), reset_keys)
        start_gap = _state_gap(start, from_smax(fresh))
        after = (step.next_state, step.done["__all__"])
        return after, differences._replace(start=start_gap)

    shapes = jax.eval_shape(reset, jax.random.split(key, batch))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = (blank, jnp.ones(batch, bool))
    _, rows = lax.scan(body, carry, jax.random.split(key, length))
    largest = [jnp.max(x) for x in rows[:5]]
    counts = [jnp.sum(x) for x in rows[5:]]
    return Differences(*largest, *counts)


def _smax_step(smax: Any, action_key: Key, keys: Keys[Array, "B"], state: Any) -> _Step:
    available = jax.vmap(smax.get_avail_actions)(state)
    available = _stack_agents(smax, available).astype(bool)
    action = _choose_actions(action_key, available)
    actions = {agent: action[:, i] for i, agent in enumerate(smax.agents)}
    obs, next_state, reward, done, _ = jax.vmap(smax.step_env)(keys, state, actions)
    return _Step(keys, state, action, available, obs, next_state, reward, done)


def _differences(scenario: Scenario, smax: Any, step: _Step) -> Differences:
    config = BattleConfig(last_targeted=True)
    before = from_smax(step.state)
    state, outcome = advance(scenario, config, step.keys, before, step.action)
    obs = observe(scenario, config, state)
    expected = from_smax(step.next_state)
    done = step.done["__all__"]
    flags, events = _compare_flags(scenario, (state, outcome), expected, done)
    available = observe(scenario, config, before).avail
    smax_alive = step.next_state.state.unit_alive
    smax_dead = _stack_agents(smax, step.done)
    return Differences(
        start=jnp.zeros(()),
        observation=_gap(flat_observation(obs), _stack_agents(smax, step.next_obs)),
        world=_gap(world_state(scenario, state), step.next_obs["world_state"]),
        reward=_gap(outcome.reward, _stack_agents(smax, step.reward)),
        state=_state_gap(state, expected),
        available=jnp.sum(available != step.available),
        alive=jnp.sum(state.alive != smax_alive) + jnp.sum(obs.alive == smax_dead),
        ended=flags,
        **events,
    )


def _compare_flags(
    scenario: Scenario,
    result: tuple[State, Outcome],
    expected: State,
    done: Bool[Array, "B"],
) -> tuple[Int[Array, ""], dict[str, Int[Array, ""]]]:
    """Return the number of unequal flags, and the counts of steps, wins, losses and timeouts."""
    state, outcome = result
    allies_dead = ~jnp.any(expected.alive[:, : scenario.n_allies], axis=1)
    enemies_dead = ~jnp.any(expected.alive[:, scenario.n_allies :], axis=1)
    won = enemies_dead & ~allies_dead
    pairs = (
        (state.ended, done),
        (outcome.terminated, enemies_dead | allies_dead),
        (outcome.truncated, done & ~enemies_dead & ~allies_dead),
        (allies_won(scenario, state), won),
    )
    unequal = jnp.sum(jnp.stack([jnp.sum(a != b) for a, b in pairs]))
    events = {
        "steps": jnp.asarray(won.shape[0]),
        "wins": jnp.sum(won),
        "losses": jnp.sum(allies_dead),
        "timeouts": jnp.sum(outcome.truncated),
    }
    return unequal, events


def _state_gap(state: State, expected: State) -> Float[Array, ""]:
    gaps = jax.tree.map(_gap, state, expected)
    return jnp.max(jnp.stack(jax.tree.leaves(gaps)))


def _gap(a: Array, b: Array) -> Float[Array, ""]:
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    return jnp.max(jnp.abs(difference))


def _stack_agents(smax: Any, by_agent: dict[str, Array]) -> Array:
    return jnp.stack([by_agent[agent] for agent in smax.agents], axis=1)


def _choose_actions(key: Key, available: Bool[Array, "B N A"]) -> Int[Array, "B N"]:
    """Return random actions in even environments, and attacks or moves east in odd ones."""
    noise = jax.random.uniform(key, available.shape)
    scores = jnp.where(available, noise, -1.0)
    random_action = jnp.argmax(scores, axis=-1)
    attacks = available[..., SMAX.n_own_actions :]
    first_attack = jnp.argmax(attacks, axis=-1) + SMAX.n_own_actions
    move = jnp.where(available[..., EAST], EAST, SMAX.n_own_actions - 1)
    offensive_action = jnp.where(jnp.any(attacks, axis=-1), first_attack, move)
    offensive = jnp.arange(available.shape[0]) % 2 == 1
    return jnp.where(offensive[:, None], offensive_action, random_action)
