"""Battles under the rules of SMAC."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl import config as settings
from jmarl.config.errors import ConfigError, check
from jmarl.envs import next_step
from jmarl.envs.battle.combat import combatants, tick
from jmarl.envs.battle.combat.combatants import take
from jmarl.envs.battle.combat.tick import (
    Bodies,
    Conditions,
    Events,
    Field,
    Orders,
    Ward,
)
from jmarl.envs.battle.combat.unit_table import UnitRow
from jmarl.envs.battle.scenarios.battle_spec import AnyBattle
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.smac import smac_outcome
from jmarl.envs.battle.smac.smac_actions import STOP, has_name, target_index
from jmarl.envs.battle.smac.smac_actions import column as action_column
from jmarl.envs.battle.smac.smac_facts import MAP_SIZE, NEVER, TICK, TICKS, Facts
from jmarl.envs.battle.smac.smac_observe import observe, sight_enemies, spec
from jmarl.envs.battle.smac.smac_opponents import Reply, choose_orders, columns_of
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.battle.smac.smac_scene import scene
from jmarl.envs.battle.smac.smac_starts import draw_starts
from jmarl.envs.battle.smac.smac_state import (
    Start,
    State,
    first_state,
    rows_of,
    to_bodies,
    trait,
    with_bodies,
)
from jmarl.envs.keys import Path
from jmarl.envs.next_step import Engine, Outcome
from jmarl.types import Env


MOVE_LENGTH = 2.0
"""Distance at which a move ends."""
SLOW = (TICKS + 1) * TICK
"""Cooldown above which a weapon fires at most once in a step, whatever its random part."""
PHYSICS: Path = (0,)
RESET: Path = (1,)


def make(name: str, **options: Any) -> Env:
    """Build the environment of a name such as ``smac_MMM2`` or ``smacv2_terran_10v10``.

    Args:
        name: full name; see ``scenarios.naming``.
        **options: fields of ``SmacConfig``.

    Raises:
        ConfigError: a part of the name or an option is unknown, or a value is wrong.
    """
    config = settings.build(SmacConfig, options, "env")
    return build(name, parse_name(name), config)


def build(name: str, battle: AnyBattle, config: SmacConfig) -> Env:
    """Build the environment of any battle.

    Raises:
        ConfigError: the options do not fit the battle.
    """
    f = Facts(battle, config)
    _check_pad(f)
    if config.layout == "clash" and f.wards:
        fault = f"{name} has units with a ward"
        fix = "use env.layout=unified"
        raise ConfigError(f"env.layout=clash: {fault}; {fix}")
    return next_step.build(name, make_engine(f), config.reset_pool)


def _check_pad(f: Facts) -> None:
    sizes = f.battle.n_allies, f.battle.n_enemies
    for team, (size, pad) in enumerate(zip(sizes, f.config.pad, strict=True)):
        rule = f"smaller than the team of {size}; use 0 or at least {size}"
        check(pad == 0 or pad >= size, f"env.pad[{team}]", pad, rule)


def make_engine(f: Facts) -> Engine:
    """Return the functions of a battle."""
    return Engine(
        spec=spec(f),
        draw_starts=partial(draw_starts, f),
        first_state=partial(_first_state, f),
        transition=partial(transition, f),
        observe=partial(observe, f),
        outcomes=partial(smac_outcome.outcomes, f),
        scene=partial(scene, f),
        paths=(PHYSICS,),
        reset_path=RESET,
    )


def _first_state(f: Facts, start: Start) -> State:
    return sight_enemies(f, first_state(f, start))


def transition(
    f: Facts, keys: Keys[Array, "L B"], state: State, action: Int[Array, "B N"]
) -> tuple[State, Outcome]:
    """Advance every environment by one step, whether its episode has ended or not."""
    state = _spot(f, state, action)
    bodies = to_bodies(state)
    reply = choose_orders(f, state, bodies)
    orders = _orders(f, reply, state, action)
    last_target = jnp.concatenate([orders.target[: f.n], reply.aim])
    if bodies.healing is not None:
        same = last_target == state.last_target.T
        bodies = bodies._replace(healing=bodies.healing & same)
    deviation = _deviations(f, keys[0])
    bodies, events = simulate(f, state, orders, bodies, deviation)
    after = with_bodies(state, bodies)
    after = after.replace(
        last_action=action,
        last_target=last_target.T,
        steps=state.steps + 1,
        facing=_turn(f, state, action),
        healed=_add_healing(f, state, events),
    )
    killed = state.alive & ~after.alive
    after = _arrive(f, after)
    after = _withdraw(after)
    after = sight_enemies(f, after)
    step = smac_outcome.Step(state, after, events, killed)
    outcome = smac_outcome.outcome(f, step)
    ended = outcome.terminated | outcome.truncated
    return after.replace(ended=ended), outcome


def simulate(
    f: Facts,
    state: State,
    orders: Orders,
    bodies: Bodies,
    deviation: Float[Array, "ticks U B"],
) -> tuple[Bodies, Events]:
    """Advance the bodies by one step, with given random parts of the cooldowns."""
    row = columns_of(rows_of(f, state))
    units = combatants.static(f.table, row)
    ward = _ward(f, row)
    area = f.slots.shields or f.slots.lines.size or f.slots.bursts.size
    is_ally = np.arange(f.n + f.m) < f.n
    hostile = jnp.asarray(is_ally[:, None] != is_ally)
    conditions = Conditions(
        slots=f.slots,
        field=_field(f, state),
        units=units,
        ward=ward,
        aim=combatants.aim(f.table, row, orders, units, hostile, ward),
        orders=orders,
        raw=combatants.raw_of_all_pairs(f.table, row) if area else None,
        hostile=hostile,
    )
    return tick.simulate(conditions, bodies, deviation)


def _field(f: Facts, state: State) -> Field:
    return Field(
        tick=TICK,
        map_size=MAP_SIZE,
        walkable=f.walkable,
        terrain=f.choose(f.ground, state.choice),
        zones=f.zones,
    )


def _ward(f: Facts, row: combatants.Rows) -> Ward | None:
    if not f.wards:
        return None

    def gather(name: str) -> Any:
        return take(f.ability(name, "allies"), row)

    return Ward(
        reach=gather("attack_range"),
        armor=gather("amount"),
        seconds=gather("duration"),
        cooldown=gather("cooldown"),
    )


def _deviations(f: Facts, keys: Keys[Array, "B"]) -> Float[Array, "ticks U B"]:
    """Draw the random parts of cooldowns: for each tick only if a unit may fire in several."""
    count = TICKS if f.may(slice(None), _is_rapid) else 1
    draw = partial(
        jax.random.uniform,
        shape=(count, f.n + f.m),
        minval=-TICK,
        maxval=2 * TICK,
    )
    deviations = jnp.moveaxis(jax.vmap(draw)(keys), 0, -1)
    return jnp.broadcast_to(deviations, (TICKS, *deviations.shape[1:]))


def _is_rapid(row: UnitRow) -> bool:
    """Return whether a weapon may fire twice in a step, other than one that bursts."""
    is_reusable = row.targets != "" and row.weapon != "burst"
    return is_reusable and row.cooldown <= SLOW


def _orders(f: Facts, reply: Reply, state: State, action: Int[Array, "B N"]) -> Orders:
    """Return the orders of all units from the actions and the orders of the enemies."""
    headings = action_column(f, "heading").astype(np.float32)  # [A, 2]
    heading = take(headings, action)  # [B, N, 2]
    target = target_index(f, rows_of(f, state), action)
    length = jnp.full(action.T.shape, MOVE_LENGTH)
    join = partial(jnp.concatenate, axis=0)
    wards = None
    if f.wards:
        gives = has_name(f, "ward", action)
        idle = jnp.zeros(reply.target.shape, bool)
        wards = join([gives.T, idle])
    return Orders(
        heading_x=join([heading[..., 0].T, reply.heading_x]),
        heading_y=join([heading[..., 1].T, reply.heading_y]),
        length=join([length, reply.length]),
        target=join([target.T, reply.target]),
        wards=wards,
    )


def _add_healing(f: Facts, state: State, events: Events) -> Any:
    """Return the health that the allies have restored since the start of the episode."""
    if state.healed is None:
        return None
    return state.healed + events.healed[: f.n].sum(0)


def _turn(f: Facts, state: State, action: Int[Array, "B N"]) -> Any:
    """Return the direction of view of each ally after its action."""
    if state.facing is None:
        return None
    direction = take(action_column(f, "direction"), action)
    alive = state.alive[:, : f.n]
    turns = alive & (direction >= 0)
    return jnp.where(turns, direction, state.facing)


def _spot(f: Facts, state: State, action: Int[Array, "B N"]) -> State:
    """Extend the sight of the allies near a unit that spots."""
    if state.spotted is None or state.extra_sight is None:
        return state
    rows = rows_of(f, state)[..., : f.n]
    ready = state.alive & (state.cooldown <= 0)
    spots = has_name(f, "spot", action) & ready[:, : f.n]

    def gather(name: str) -> Any:
        values = take(f.ability(name, "self"), rows)
        return jnp.broadcast_to(values, spots.shape)

    near = _near(f, state, gather("attack_range"))
    lands = spots[..., None] & near  # [B, N, N]

    def best(values: Array) -> Array:
        received = jnp.where(lands, values[..., None], 0.0)
        return jnp.max(received, axis=1)

    seconds = best(gather("duration"))
    sight = best(gather("amount"))
    left = jnp.maximum(state.spotted - TICK * TICKS, 0.0)
    spotted = jnp.where(seconds > 0, seconds, left)
    extra = jnp.where(seconds > 0, sight, state.extra_sight)
    cooldown = jnp.where(spots, gather("cooldown"), state.cooldown[:, : f.n])
    return state.replace(
        spotted=spotted,
        extra_sight=jnp.where(spotted > 0, extra, 0.0),
        cooldown=state.cooldown.at[:, : f.n].set(cooldown),
    )


def _near(f: Facts, state: State, reach: Array) -> Bool[Array, "B N N"]:
    """Return the living allies within the edge-to-edge reach of each ally."""
    position = state.position[:, : f.n]
    offset = position[:, :, None] - position[:, None]
    square = (offset**2).sum(-1)
    rows = rows_of(f, state)[..., : f.n]
    radius = trait(f, rows, "radius")
    limit = reach[..., None] + radius[..., None] + radius[..., None, :]
    alive = state.alive[:, None, : f.n]
    return alive & (square <= limit**2)


def _arrive(f: Facts, state: State) -> State:
    """Give full strength to the units that appear now."""
    if state.arrives is None:
        return state
    steps = state.steps[:, None]
    arrives = (state.arrives == steps) & (steps > 0)
    rows = rows_of(f, state)

    def fill(values: Array | None, name: str) -> Any:
        if values is None:
            return None
        return jnp.where(arrives, trait(f, rows, name), values)

    is_new = arrives[:, : f.n]  # their last actions had no effect
    return state.replace(
        last_action=jnp.where(is_new, STOP, state.last_action),
        health=fill(state.health, "health"),
        shield=fill(state.shield, "shield"),
        energy=fill(state.energy, "energy"),
    )


def _withdraw(state: State) -> State:
    """Remove the living units that leave now; a unit that died before does not leave."""
    if state.leaves is None:
        return state
    is_due = state.leaves == state.steps[:, None]
    is_dead = is_due & ~state.alive
    leaves = jnp.where(is_dead, NEVER, state.leaves)
    health = jnp.where(is_due, 0.0, state.health)
    return state.replace(leaves=leaves, health=health)
