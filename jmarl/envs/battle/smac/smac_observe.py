"""Observations, masks of actions and the central state under the rules of SMAC."""

from __future__ import annotations

import functools
import math
import operator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.combat import combatants, zones
from jmarl.envs.battle.combat.combatants import Rows, take
from jmarl.envs.battle.smac import smac_actions
from jmarl.envs.battle.smac.smac_actions import DIRECTIONS, FIRST_MOVE, MOVES, NO_OP
from jmarl.envs.battle.smac.smac_facts import MAP_SIZE, Facts
from jmarl.envs.battle.smac.smac_state import (
    ObservableState,
    State,
    present,
    rows_of,
    trait,
)
from jmarl.types import CentralState, EntityObs, Group, Spec


SIGHT = 9.0
"""Sight range of all types in SMAC."""
REACH = 6.0
"""Distance up to which SMAC offers targets to all types."""
LEAST_REACH = 2.0
"""Smallest distance up to which SMACv2 offers targets."""
CELLS = int(MAP_SIZE)
"""Cells of the map along an axis."""
LOOPS_PER_SECOND = 16
TURN = 2 * math.pi / DIRECTIONS
"""Angle between two directions of the view, in radians."""
HALF_CONE = math.pi / DIRECTIONS
"""Largest angle between the view and a visible unit, in radians."""


Groups = tuple[Array, Array]
"""Values of the other allies, and of the enemies, for each observer."""


class ObsCodec(NamedTuple):
    """Codec of observations: ``types.ObsCodec`` for battles."""

    facts: Facts

    def encode(self, state: ObservableState) -> ObservableState:
        """Return the fields of a state that determine the observations."""
        names = ObservableState.__dataclass_fields__
        return ObservableState(**{name: getattr(state, name) for name in names})

    def decode(self, encoded_obs: ObservableState) -> EntityObs:
        """Return the observations of an encoded state."""
        return observe(self.facts, encoded_obs)

    def empty(self, *batch: int) -> ObservableState:
        """Return zeros with the shapes of encoded observations."""

        def zeros(x: jax.ShapeDtypeStruct) -> Array:
            shape = (*batch, *x.shape[1:])
            return jnp.zeros(shape, x.dtype)

        shapes = jax.eval_shape(partial(_first_observable, self.facts))
        return jax.tree.map(zeros, shapes)


def _first_observable(f: Facts) -> ObservableState:
    from jmarl.envs.battle.smac.smac_starts import draw_starts
    from jmarl.envs.battle.smac.smac_state import first_state

    keys = jax.random.split(jax.random.key(0), 1)
    starts = draw_starts(f, keys)
    state = first_state(f, starts)
    return ObsCodec(f).encode(state)


def spec(f: Facts) -> Spec:
    """Return the shapes and action targets: own actions, attacks, and then support."""
    actions = smac_actions.layout(f)
    allies = _group(f, "allies", f.n - 1, f.n)
    enemies = _group(f, "enemies", f.m, f.m)
    return Spec(
        n_agents=f.n,
        n_actions=len(actions),
        own_width=_own_width(f),
        groups=(allies, enemies),
        global_width=1,
        episode_limit=int(f.limits.max()),
        action_target=smac_actions.action_target(f),
        class_actions=smac_actions.class_actions(f),
        agent_classes=f.agent_types,
        n_unit_classes=len(f.unit_types),
        class_features=tuple(_type_columns(f)) if f.config.show_types else (),
        outcomes=("won", "healed") if f.heals else ("won",),
        obs_codec=ObsCodec(f),
        fixed_team=not f.allies_absent,
    )


def _group(f: Facts, name: str, size: int, state_size: int) -> Group:
    body = _body_width(f)
    return Group(
        name,
        size,
        width=body + 5,  # relative x and y, distance, in reach, aimed at
        state_size=state_size,
        state_width=body + 2,  # x and y
    )


def _own_width(f: Facts) -> int:
    """Return the number of features of the observer."""
    width = _body_width(f) + smac_actions.n_own_actions(f)
    if _shows_position(f):
        width += 2
    if f.config.cone:
        width += 2
    return width


def _body_width(f: Facts) -> int:
    """Return the number of features: health, shield, gauge, perhaps ward; type."""
    return _type_columns(f).stop


def _type_columns(f: Facts) -> range:
    """Return the features of a unit that are the one-hot of its type."""
    first = 3 + f.wards
    return range(first, first + len(f.unit_types))


def _shows_position(f: Facts) -> bool:
    return f.config.own_position or f.is_v2


def _sight(f: Facts, state: ObservableState) -> Any:
    """Return the sight of each ally, ``[..., N, 1]``."""
    sight: Any = SIGHT
    if f.is_v2:
        rows = rows_of(f, state)[..., : f.n, None]
        sight = trait(f, rows, "sight_range")
    if state.extra_sight is not None:
        sight = sight + state.extra_sight[..., None]
    return sight


def _reach(f: Facts, rows: Rows) -> Any:
    """Return the distance up to which each ally may choose targets, ``[..., N, 1]``."""
    if not f.is_v2:
        return REACH
    reach = trait(f, rows[..., : f.n, None], "smacv2_range")
    return jnp.maximum(reach, LEAST_REACH)


class View(NamedTuple):
    """All units relative to each ally."""

    dx: Float[Array, "B N U"]
    dy: Float[Array, "B N U"]
    distance: Float[Array, "B N U"]
    both_alive: Bool[Array, "B N U"]
    visible: Bool[Array, "B N U"] | None
    """Units that neither the cone, nor a zone, nor partial observability hides; None: all."""


def view(f: Facts, state: ObservableState) -> View:
    """Return all units relative to each ally."""
    x = state.position[..., 0]
    y = state.position[..., 1]
    dx = x[:, None] - x[:, : f.n, None]
    dy = y[:, None] - y[:, : f.n, None]
    alive = state.alive
    both_alive = alive[:, None] & alive[:, : f.n, None]
    distance = jnp.sqrt(dx * dx + dy * dy)
    tests = []
    if state.facing is not None:
        tests.append(_in_cone(state.facing, dx, dy, distance))
    if zones.of("conceal", f.zones):
        tests.append(_not_concealed(f, state, distance))
    if state.unlucky is not None:
        tests.append(_not_hidden(f, state.unlucky))
    visible = functools.reduce(operator.and_, tests) if tests else None
    return View(dx, dy, distance, both_alive, visible)


def _not_hidden(f: Facts, unlucky: Bool[Array, "B N M"]) -> Bool[Array, "B N U"]:
    """Return the units that partial observability does not hide from each ally."""
    batch = unlucky.shape[0]
    friends = jnp.zeros((batch, f.n, f.n), bool)
    hidden = jnp.concatenate([friends, unlucky], axis=-1)
    return ~hidden


def _in_cone(facing: Array, dx: Array, dy: Array, distance: Array) -> Array:
    angle = TURN * facing[..., None]
    along = dx * jnp.cos(angle) + dy * jnp.sin(angle)
    return along >= math.cos(HALF_CONE) * distance


def _not_concealed(f: Facts, state: ObservableState, distance: Array) -> Array:
    grounded = take(combatants.flags(f.table, "grounded"), rows_of(f, state))
    x = state.position[..., 0]
    y = state.position[..., 1]
    farthest = zones.visible_from(f.zones, x, y, grounded)
    is_ally = jnp.arange(f.n + f.m) < f.n
    return is_ally | (distance <= farthest[:, None])


def sees(f: Facts, state: ObservableState, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that each ally sees."""
    is_near = seen_by.distance < _sight(f, state)
    seen = seen_by.both_alive & is_near
    if seen_by.visible is None:
        return seen
    return seen & seen_by.visible


def sight_enemies(f: Facts, state: State) -> State:
    """Record which allies can never see an enemy, because another ally sights it first."""
    if state.unlucky is None or state.sighted is None or state.luck is None:
        return state
    seen_by = view(f, state)
    seen = sees(f, state, seen_by)[..., f.n :]  # [B, N, M]
    is_new = seen.any(1) & ~state.sighted  # [B, M]
    first = jnp.argmax(seen, axis=1)  # [B, M]
    others = jnp.arange(f.n)[:, None] != first[:, None]
    newly_unlucky = is_new[:, None] & others & ~state.luck
    return state.replace(
        unlucky=state.unlucky | newly_unlucky,
        sighted=state.sighted | is_new,
    )


def observe(f: Facts, state: ObservableState) -> EntityObs:
    """Return the entity observations of all allies and the central state."""
    alive = state.alive
    seen_by = view(f, state)
    reach = _can_aim(f, rows_of(f, state), seen_by)  # [B, N, U]
    body = _bodies(f, state)  # [B, U, F]
    shown = body if f.config.show_types else _without_types(f, body)
    entities = _rows(f, state, seen_by, reach, shown)
    masks = _split(f.n, sees(f, state, seen_by))
    position = state.position / MAP_SIZE
    units = jnp.concatenate([body, position], axis=-1)
    kinds = rows_of(f, state)[..., : f.n] % len(f.unit_types)
    return EntityObs(
        own=_own(f, state, shown, position),
        rows=_hide(_split(f.n, entities), masks),
        mask=masks,
        avail=_available(f, state, reach),
        alive=alive[:, : f.n],
        joined=_joined(f, state),
        unit_class=jnp.broadcast_to(kinds, (alive.shape[0], f.n)),
        state=_central(f, state, alive, units),
    )


def _without_types(f: Facts, body: Float[Array, "B U F"]) -> Float[Array, "B U F"]:
    return body.at[..., np.array(_type_columns(f))].set(0.0)


def _hide(groups: Groups, masks: Groups) -> Groups:
    """Set the features of the entities that are not seen to zero."""
    allies, enemies = groups
    sees_ally, sees_enemy = masks
    allies = jnp.where(sees_ally[..., None], allies, 0.0)
    enemies = jnp.where(sees_enemy[..., None], enemies, 0.0)
    return allies, enemies


def _central(
    f: Facts, state: ObservableState, alive: Array, units: Array
) -> CentralState:
    """Return the central state: the time, and the features of the living units."""
    limit = f.choose(f.limits, state.choice)
    time = state.steps / limit
    units = jnp.where(alive[..., None], units, 0.0)
    return CentralState(
        features=time[:, None],
        rows=(units[:, : f.n], units[:, f.n :]),
        mask=(alive[:, : f.n], alive[:, f.n :]),
    )


def _joined(f: Facts, state: ObservableState) -> Bool[Array, "B N"]:
    """Return the allies that have just arrived, after the start of the episode."""
    if state.arrives is None:
        return jnp.zeros((state.steps.shape[0], f.n), bool)
    steps = state.steps[:, None]
    arrives_now = state.arrives[:, : f.n] == steps
    return arrives_now & (steps > 0)


def _bodies(f: Facts, state: ObservableState) -> Float[Array, "B U F"]:
    """Return health, shield, gauge (energy, or cooldown), ward, and type of each unit."""
    field = partial(trait, f, rows_of(f, state))
    full_health = jnp.maximum(field("health"), 1e-3)
    health = state.health / full_health
    shield = jnp.zeros_like(health)
    if state.shield is not None:
        full_shield = jnp.maximum(field("shield"), 1.0)
        shield = state.shield / full_shield
    parts = [health, shield, _gauge(f, state)]
    if state.ward is not None:
        parts.append(jnp.minimum(state.ward, 1.0))
    numbers = jnp.stack(parts, axis=-1)
    return jnp.concatenate([numbers, _one_hot_type(f, state)], axis=-1)


def _gauge(f: Facts, state: ObservableState) -> Float[Array, "B U"]:
    """Return the energy of healers and the cooldown of other units, as fractions."""
    field = partial(trait, f, rows_of(f, state))
    scale = field("cooldown_scale") / LOOPS_PER_SECOND
    cooldown = jnp.clip(state.cooldown / scale, 0.0, 1.0)
    if state.energy is None:
        return cooldown
    full_energy = jnp.maximum(field("max_energy"), 1.0)
    energy = state.energy / full_energy
    is_healer = field("heal") > 0
    return jnp.where(is_healer, energy, cooldown)


def _one_hot_type(f: Facts, state: ObservableState) -> Float[Array, "B U F"]:
    types = len(f.unit_types)
    kind = rows_of(f, state) % types
    code = (kind[..., None] == np.arange(types)).astype(np.float32)
    return jnp.broadcast_to(code, (*state.health.shape, types))


def _own(f: Facts, state: ObservableState, body: Array, position: Array) -> Array:
    """Return the features of each observer."""
    n_own = smac_actions.n_own_actions(f)
    last_action = jax.nn.one_hot(state.last_action, n_own)
    parts = [body[:, : f.n], last_action]
    if _shows_position(f):
        parts.append(position[:, : f.n])
    if state.facing is not None:
        parts.append(_facing_vector(state.facing))
    own = jnp.concatenate(parts, axis=-1)
    alive = state.alive[:, : f.n, None]
    return jnp.where(alive, own, 0.0)


def _facing_vector(facing: Array) -> Array:
    """Return the direction of view as a unit vector."""
    angle = TURN * facing
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _rows(
    f: Facts, state: ObservableState, seen_by: View, reach: Array, body: Array
) -> Float[Array, "B N U F"]:
    """Return the features of all units for each observer."""
    shape = (*reach.shape, body.shape[-1])
    target = smac_actions.target_index(f, rows_of(f, state), state.last_action)
    aimed = target[..., None] == jnp.arange(f.n + f.m)
    sight = _sight(f, state)
    dx = seen_by.dx / sight
    dy = seen_by.dy / sight
    distance = seen_by.distance / sight
    relative = jnp.stack([dx, dy, distance, reach, aimed], axis=-1)
    bodies = jnp.broadcast_to(body[:, None], shape)
    return jnp.concatenate([bodies, relative], axis=-1)


def _split(n: int, x: Array) -> Groups:
    """Split units into an observer's slots: the other allies in order, and the enemies."""
    slot = np.arange(n - 1)
    observer = np.arange(n)[:, None]
    before = slot < observer  # [N, N - 1]
    feature_axes = [1] * (x.ndim - 3)
    before = before.reshape(1, n, n - 1, *feature_axes)
    allies = jnp.where(before, x[:, :, : n - 1], x[:, :, 1:n])
    enemies = x[:, :, n:]
    return allies, enemies


def _can_aim(f: Facts, rows: Rows, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that each ally can attack or support."""
    is_ally = np.arange(f.n + f.m) < f.n
    armed = take(combatants.flags(f.table, "armed"), rows)
    pairs = armed[..., : f.n, None] & ~is_ally
    if f.heals:
        pairs = pairs | (_healers(f, rows) & _patients(f, rows))
    if f.wards:
        pairs = pairs | (_warders(f, rows) & _others(f))
    return pairs & _offered(f, rows, seen_by)


def _offered(f: Facts, rows: Rows, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that may be targets by life, distance and visibility."""
    if not f.config.action_mask:
        return seen_by.both_alive
    in_reach = seen_by.distance <= _reach(f, rows)
    offered = seen_by.both_alive & in_reach
    if seen_by.visible is None:
        return offered
    return offered & seen_by.visible


def _healers(f: Facts, rows: Rows) -> Any:
    return trait(f, rows[..., : f.n, None], "heal") > 0


def _warders(f: Facts, rows: Rows) -> Any:
    """Return the allies that can give temporary armor: those with a finite cooldown."""
    cooldowns = f.ability("cooldown", "allies")
    cooldown = take(cooldowns, rows[..., : f.n, None])
    return cooldown < np.inf


def _others(f: Facts) -> np.ndarray:
    """Return the allies other than each ally itself, ``[N, U]``."""
    is_ally = np.arange(f.n + f.m) < f.n
    return is_ally & ~np.eye(f.n, f.n + f.m, dtype=bool)


def _patients(f: Facts, rows: Rows) -> Any:
    """Return the allies that SMAC offers to healers: all others but healers."""
    heals = trait(f, rows, "heal") > 0
    return _others(f) & ~heals[..., None, :]


def _available(
    f: Facts, state: ObservableState, reach: Bool[Array, "B N U"]
) -> Bool[Array, "B N A"]:
    own = _available_own(f, state)
    targeted = _targeted(f, rows_of(f, state), reach)
    return jnp.concatenate([own, *targeted], axis=-1)


def _available_own(f: Facts, state: ObservableState) -> Bool[Array, "B N A"]:
    """Return the mask of the actions without a target."""
    alive = state.alive[:, : f.n]
    is_here = present(f, state)[:, : f.n]
    n_own = smac_actions.n_own_actions(f)
    own = jnp.broadcast_to(alive[..., None], (*alive.shape, n_own))
    own = own.at[..., NO_OP].set(is_here & ~alive)
    moves = slice(FIRST_MOVE, FIRST_MOVE + len(MOVES))
    can_move = _can_move(f, state) & alive[..., None]
    own = own.at[..., moves].set(can_move)
    if f.spots:
        rows = rows_of(f, state)[..., : f.n]
        cooldown = take(f.ability("cooldown", "self"), rows)
        can_spot = alive & (cooldown < np.inf)
        own = own.at[..., n_own - 1].set(can_spot)
    return own


def _targeted(f: Facts, rows: Rows, reach: Array) -> list[Array]:
    """Return the masks of attacks and of support."""
    allies, enemies = _split(f.n, reach)
    if f.config.layout == "clash":
        return [_clash(f, rows, reach)]
    blocks = [enemies]
    if f.heals:
        all_patients = jnp.broadcast_to(_patients(f, rows), reach.shape)
        patients, _ = _split(f.n, all_patients)
        can_heal = allies & _healers(f, rows) & patients
        blocks.append(can_heal)
    if f.wards:
        can_ward = allies & _warders(f, rows)
        blocks.append(can_ward)
    return blocks


def _clash(f: Facts, rows: Rows, reach: Array) -> Array:
    """Return the mask of actions that attack enemy j, or heal ally j."""
    if not f.heals:
        return reach[..., f.n :]
    count = max(f.n, f.m)

    def widen(x: Array) -> Array:
        missing = count - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, missing)))

    allies = widen(reach[..., : f.n])
    enemies = widen(reach[..., f.n :])
    return jnp.where(_healers(f, rows), allies, enemies)


def _can_move(f: Facts, state: ObservableState) -> Bool[Array, "B N 4"]:
    """Return the moves to a cell on the map that the unit can walk on."""
    rows = rows_of(f, state)[..., : f.n]
    position = state.position[:, : f.n, None]
    cell = jnp.trunc(position + MOVES).astype(jnp.int32)
    on_map = (cell >= 0) & (cell < CELLS)
    free = jnp.all(on_map, axis=-1)
    if f.may(slice(0, f.n), lambda row: row.speed == 0):
        walks = jnp.asarray(trait(f, rows, "speed") > 0)
        free &= walks[..., None]
    if f.walkable is None:
        return free
    stopped_by_walls = take(combatants.flags(f.table, "walks"), rows)
    flies = ~stopped_by_walls[..., None]
    return free & (_is_walkable(f, state, cell) | flies)


def _is_walkable(f: Facts, state: ObservableState, cell: Array) -> Bool[Array, "B N 4"]:
    """Return whether cells of the terrain of each battle can be walked on."""
    assert f.walkable is not None
    cell = jnp.clip(cell, 0, CELLS - 1)
    index = cell[..., 0] * CELLS + cell[..., 1]
    if state.choice is not None:
        ground = take(f.ground, state.choice)
        index = index + ground[:, None, None] * CELLS**2
    return take(f.walkable.ravel(), index)
