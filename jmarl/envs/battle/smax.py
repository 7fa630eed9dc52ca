"""JaxMARL's own SMAX beside the battle of the same scenario: the other side of every comparison.

``compare`` steps both from JaxMARL's state with the same keys and actions (teacher forcing, so that rounding does not
add up) over whole episodes, and returns the differences. JaxMARL is imported when a function is called.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl.envs.battle import env as battle
from jmarl.envs.battle.observe import observe
from jmarl.envs.battle.rules import N_OWN_ACTIONS, UNITS, BattleConfig, Scenario
from jmarl.envs.battle.state import State, trait
from jmarl.types import EntityObs, Key


class Differences(NamedTuple):
    """Of a comparison: largest absolute differences, counts of unequal entries, counts of events that it met."""

    start: Float[Array, ""]
    """Of the states that episodes begin with; types count as numbers."""
    observation: Float[Array, ""]
    world: Float[Array, ""]
    reward: Float[Array, ""]
    state: Float[Array, ""]
    available: Int[Array, ""]
    alive: Int[Array, ""]
    ended: Int[Array, ""]
    """Unequal verdicts: ended at all, by the death of a side, by the limit, won."""
    steps: Int[Array, ""]
    wins: Int[Array, ""]
    losses: Int[Array, ""]
    timeouts: Int[Array, ""]


def reference(scenario: Scenario) -> Any:
    """``HeuristicEnemySMAX`` of a scenario. Call it outside of jit: JaxMARL makes arrays when it is imported."""
    from jaxmarl.environments.smax import HeuristicEnemySMAX
    from jaxmarl.environments.smax import Scenario as TheirScenario

    types = jnp.asarray(scenario.allies + scenario.enemies, jnp.uint8)
    theirs = TheirScenario(
        types, scenario.n_allies, scenario.n_enemies, scenario.drawn, scenario.drawn
    )
    return HeuristicEnemySMAX(scenario=theirs, max_steps=scenario.limit)


def from_smax(theirs: Any) -> State:
    """A batch of JaxMARL's states as a battle state."""
    world, memory = theirs.state, theirs.enemy_policy_state
    return State(
        position=world.unit_positions,
        health=world.unit_health,
        cooldown=world.unit_weapon_cooldowns,
        kind=world.unit_types.astype(jnp.int32),
        heading=world.prev_movement_actions,
        attack=world.prev_attack_actions,
        goal=memory.default_target,
        quarry=memory.last_attacked_enemy,
        steps=world.step,
        ended=world.done,
        pool=None,
    )


def flat_observation(obs: EntityObs) -> Float[Array, "B N F"]:
    """SMAX's ``unit_list`` vector of each ally, from observations with ``last_targeted`` on."""
    rows = [group.reshape(*group.shape[:2], -1) for group in obs.rows]
    return jnp.concatenate([*rows, obs.own], axis=-1)


def world_state(scenario: Scenario, state: State) -> Float[Array, "B F"]:
    """SMAX's global state, raw positions, cooldowns and type ids included."""
    health = state.health / trait(UNITS.health, state.kind)
    kind = jax.nn.one_hot(state.kind, UNITS.count)
    rows = jnp.concatenate(
        [health[..., None], state.position, state.cooldown[..., None], kind], axis=-1
    )
    rows = jnp.where(state.alive[..., None], rows, 0.0).reshape(rows.shape[0], -1)
    teams = (jnp.arange(scenario.n_units) >= scenario.n_allies).astype(jnp.float32)
    return jnp.concatenate(
        [rows, jnp.broadcast_to(teams, state.kind.shape), state.kind], axis=-1
    )


def compare(
    scenario: Scenario, smax: Any, key: Key, batch: int, length: int
) -> Differences:
    """Step ``batch`` worlds ``length`` times, here and by ``smax = reference(scenario)``, with the same keys.

    Ended worlds begin anew. Half of the worlds take random available actions, in the other half the
    allies march east and shoot at the first enemy they can, so that episodes end in wins too.
    """
    reset = jax.vmap(lambda key: smax.reset(key)[1])
    pick = jax.vmap(
        lambda end, a, b: jax.tree.map(lambda x, y: jnp.where(end, x, y), a, b)
    )

    def body(
        carry: tuple[Any, Array], key: Key
    ) -> tuple[tuple[Any, Array], Differences]:
        action_key, step_key, reset_key = jax.random.split(key, 3)
        keys, reset_keys = (
            jax.random.split(step_key, batch),
            jax.random.split(reset_key, batch),
        )
        fresh = reset(reset_keys)
        theirs = pick(carry[1], fresh, carry[0])
        available = _stack(smax, jax.vmap(smax.get_avail_actions)(theirs)).astype(bool)
        action = _actions(action_key, available)
        actions = {agent: action[:, i] for i, agent in enumerate(smax.agents)}
        after = jax.vmap(smax.step_env)(keys, theirs, actions)
        found = _differences(scenario, smax, keys, theirs, action, available, after)
        start = _state_gap(
            battle.begin(scenario, BattleConfig(), reset_keys), from_smax(fresh)
        )
        return (after[1], after[3]["__all__"]), found._replace(start=start)

    nothing = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(reset, jax.random.split(key, batch)),
    )
    _, found = lax.scan(
        body, (nothing, jnp.ones(batch, bool)), jax.random.split(key, length)
    )
    largest = [jnp.max(x) for x in found[:5]]
    return Differences(*largest, *(jnp.sum(x) for x in found[5:]))


def _differences(
    scenario: Scenario,
    smax: Any,
    keys: Keys[Array, "B"],
    theirs: Any,
    action: Array,
    available: Array,
    after: tuple,
) -> Differences:
    config = BattleConfig(last_targeted=True)
    their_obs, their_state, their_reward, their_done, _ = after
    before = from_smax(theirs)
    ours, (reward, terminated, truncated) = battle.advance(
        scenario, config, keys, before, action
    )
    obs = observe(scenario, config, ours)
    want = from_smax(their_state)
    enemies_dead = ~jnp.any(want.alive[:, scenario.n_allies :], axis=1)
    allies_dead = ~jnp.any(want.alive[:, : scenario.n_allies], axis=1)
    won = enemies_dead & ~allies_dead
    verdicts = (
        (ours.ended, their_done["__all__"]),
        (terminated, enemies_dead | allies_dead),
        (truncated, their_done["__all__"] & ~enemies_dead & ~allies_dead),
        (battle.won(scenario, ours), won),
    )
    return Differences(
        start=jnp.zeros(()),
        observation=_gap(flat_observation(obs), _stack(smax, their_obs)),
        world=_gap(world_state(scenario, ours), their_obs["world_state"]),
        reward=_gap(
            jnp.repeat(reward[:, None], scenario.n_allies, 1),
            _stack(smax, their_reward),
        ),
        state=_state_gap(ours, want),
        available=jnp.sum(observe(scenario, config, before).avail != available),
        alive=jnp.sum(ours.alive != their_state.state.unit_alive)
        + jnp.sum(obs.alive == _stack(smax, their_done)),
        ended=sum((jnp.sum(a != b) for a, b in verdicts), start=jnp.zeros((), int)),
        steps=jnp.asarray(won.shape[0]),
        wins=jnp.sum(won),
        losses=jnp.sum(allies_dead),
        timeouts=jnp.sum(truncated),
    )


def _state_gap(ours: State, theirs: State) -> Float[Array, ""]:
    gaps = jax.tree.map(_gap, ours, theirs)
    return jnp.max(jnp.stack(jax.tree.leaves(gaps)))


def _gap(a: Array, b: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)))


def _stack(smax: Any, by_agent: dict[str, Array]) -> Array:
    return jnp.stack([by_agent[agent] for agent in smax.agents], axis=1)


def _actions(key: Key, available: Bool[Array, "B N A"]) -> Int[Array, "B N"]:
    scores = jnp.where(available, jax.random.uniform(key, available.shape), -1.0)
    wander = jnp.argmax(scores, axis=-1)
    first = jnp.argmax(available[..., N_OWN_ACTIONS:], axis=-1) + N_OWN_ACTIONS
    march = jnp.where(available[..., 1], 1, N_OWN_ACTIONS - 1)
    attack = jnp.where(jnp.any(available[..., N_OWN_ACTIONS:], axis=-1), first, march)
    bold = jnp.arange(available.shape[0]) % 2 == 1
    return jnp.where(bold[:, None], attack, wander)
