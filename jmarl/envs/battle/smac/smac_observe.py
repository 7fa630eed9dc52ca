"""Observations, masks of actions and the central state under the rules of SMAC."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.combat import combatants, zones
from jmarl.envs.battle.combat.combatants import Rows, take
from jmarl.envs.battle.smac import smac_actions
from jmarl.envs.battle.smac.smac_actions import DIRECTIONS, FIRST_MOVE, MOVES
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
"""Sight of all types in SMAC."""
REACH = 6.0
"""Distance up to which SMAC offers targets to all types."""
LEAST_REACH = 2.0
"""Smallest distance up to which SMACv2 offers targets."""
LOOPS_PER_SECOND = 16
HALF_CONE = math.pi / DIRECTIONS
"""Largest angle between the view and a visible unit, in radians."""


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
        f = self.facts
        shapes = jax.eval_shape(partial(_first_observable, f))
        return jax.tree.map(
            lambda x: jnp.zeros((*batch, *x.shape[1:]), x.dtype), shapes
        )


def _first_observable(f: Facts) -> ObservableState:
    from jmarl.envs.battle.smac.smac_starts import draw_starts
    from jmarl.envs.battle.smac.smac_state import first_state

    state = first_state(f, draw_starts(f, jax.random.split(jax.random.key(0), 1)))
    return ObsCodec(f).encode(state)


def spec(f: Facts) -> Spec:
    """Return the shapes and action targets: own actions, attacks, and then support."""
    body = _body_width(f)
    width = body + 5  # relative x and y, distance, in reach, aimed at
    own = body + smac_actions.n_own_actions(f)
    own += 2 * _shows_position(f) + 2 * f.config.cone
    actions = smac_actions.layout(f)
    return Spec(
        n_agents=f.n,
        n_actions=len(actions),
        own_width=own,
        groups=(
            Group("allies", f.n - 1, width, f.n, body + 2),
            Group("enemies", f.m, width, f.m, body + 2),
        ),
        global_width=1,
        episode_limit=int(f.limits.max()),
        action_target=smac_actions.action_target(f),
        class_actions=smac_actions.class_actions(f),
        n_unit_classes=len(f.unit_types),
        outcomes=("won",),
        obs_codec=ObsCodec(f),
        fixed_team=not f.allies_absent,
    )


def _body_width(f: Facts) -> int:
    """Return the number of features: health, shield, gauge, perhaps ward; type."""
    return 3 + f.wards + len(f.unit_types)


def _shows_position(f: Facts) -> bool:
    return f.config.own_position or f.is_v2


def _sight(f: Facts, state: ObservableState) -> Any:
    """Return the sight of each ally, ``[..., N, 1]``."""
    sight: Any = SIGHT
    if f.is_v2:
        sight = trait(f, rows_of(f, state)[..., : f.n, None], "sight_range")
    if state.extra_sight is not None:
        sight = sight + state.extra_sight[..., None]
    return sight


def _reach(f: Facts, rows: Rows) -> Any:
    """Return the distance up to which each ally may choose targets, ``[..., N, 1]``."""
    if not f.is_v2:
        return REACH
    return jnp.maximum(trait(f, rows[..., : f.n, None], "smacv2_range"), LEAST_REACH)


class View(NamedTuple):
    """All units relative to each ally."""

    dx: Float[Array, "B N U"]
    dy: Float[Array, "B N U"]
    distance: Float[Array, "B N U"]
    both_alive: Bool[Array, "B N U"]
    visible: Bool[Array, "B N U"] | None
    """Units that neither the cone of view, nor a zone, nor bad luck hides; None: all."""


def view(f: Facts, state: ObservableState) -> View:
    """Return all units relative to each ally."""
    x, y = state.position[..., 0], state.position[..., 1]
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
        friends = jnp.zeros((*state.unlucky.shape[:2], f.n), bool)
        tests.append(~jnp.concatenate([friends, state.unlucky], axis=-1))
    visible = None
    for test in tests:
        visible = test if visible is None else visible & test
    return View(dx, dy, distance, both_alive, visible)


def _in_cone(facing: Array, dx: Array, dy: Array, distance: Array) -> Array:
    angle = (2 * math.pi / DIRECTIONS) * facing[..., None]
    along = dx * jnp.cos(angle) + dy * jnp.sin(angle)
    return along >= math.cos(HALF_CONE) * distance


def _not_concealed(f: Facts, state: ObservableState, distance: Array) -> Array:
    walks = take(combatants.flags(f.table, "grounded"), rows_of(f, state))
    farthest = zones.visible_from(
        f.zones, state.position[..., 0], state.position[..., 1], walks
    )
    is_ally = jnp.arange(f.n + f.m) < f.n
    return is_ally | (distance <= farthest[:, None])


def sees(f: Facts, state: ObservableState, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that each ally sees."""
    seen = seen_by.both_alive & (seen_by.distance < _sight(f, state))
    return seen if seen_by.visible is None else seen & seen_by.visible


def sight_enemies(f: Facts, state: State) -> State:
    """Draw which allies can never see the enemies that are sighted for the first time."""
    if state.unlucky is None or state.sighted is None or state.luck is None:
        return state
    seen = sees(f, state, view(f, state))[..., f.n :]  # [B, N, M]
    is_new = seen.any(1) & ~state.sighted
    first = jnp.argmax(seen, axis=1)  # [B, M]
    others = jnp.arange(f.n)[:, None] != first[:, None]
    unlucky = state.unlucky | (is_new[:, None] & others & ~state.luck)
    return state.replace(unlucky=unlucky, sighted=state.sighted | is_new)


def observe(f: Facts, state: ObservableState) -> EntityObs:
    """Return the entity observations of all allies and the central state."""
    n, alive = f.n, state.alive
    seen_by = view(f, state)
    reach = _can_aim(f, rows_of(f, state), seen_by)  # [B, N, U]
    body = _bodies(f, state)  # [B, U, F]
    entities = _rows(f, state, seen_by, reach, body)
    split = _split(n, sees(f, state, seen_by))
    position = state.position / MAP_SIZE
    central = jnp.concatenate([body, position], axis=-1)
    central = jnp.where(alive[..., None], central, 0.0)
    kinds = rows_of(f, state)[..., :n] % len(f.unit_types)
    return EntityObs(
        own=_own(f, state, body, position),
        rows=tuple(
            jnp.where(mask[..., None], row, 0.0)
            for mask, row in zip(split, _split(n, entities), strict=True)
        ),
        mask=split,
        avail=_available(f, state, reach),
        alive=alive[:, :n],
        joined=_joined(f, state),
        unit_class=jnp.broadcast_to(kinds, (alive.shape[0], n)),
        state=CentralState(
            features=(state.steps / f.choose(f.limits, state.choice))[:, None],
            rows=(central[:, :n], central[:, n:]),
            mask=(alive[:, :n], alive[:, n:]),
        ),
    )


def _joined(f: Facts, state: ObservableState) -> Bool[Array, "B N"]:
    """Return the allies that have just arrived, after the start of the episode."""
    if state.arrives is None:
        return jnp.zeros((state.steps.shape[0], f.n), bool)
    steps = state.steps[:, None]
    return (state.arrives[:, : f.n] == steps) & (steps > 0)


def _bodies(f: Facts, state: ObservableState) -> Float[Array, "B U F"]:
    """Return health, shield, gauge (energy, or cooldown), ward, and type of each unit."""
    rows = rows_of(f, state)
    field = partial(trait, f, rows)
    health = state.health / jnp.maximum(field("health"), 1e-3)
    shield = jnp.zeros_like(health)
    if state.shield is not None:
        shield = state.shield / jnp.maximum(field("shield"), 1.0)
    scale = field("cooldown_scale") / LOOPS_PER_SECOND
    gauge = jnp.clip(state.cooldown / scale, 0.0, 1.0)
    if state.energy is not None:
        fraction = state.energy / jnp.maximum(field("max_energy"), 1.0)
        gauge = jnp.where(field("heal") > 0, fraction, gauge)
    parts = [health, shield, gauge]
    if state.ward is not None:
        parts.append(jnp.minimum(state.ward, 1.0))
    types = len(f.unit_types)
    kind = take(np.eye(types, dtype=np.float32), rows % types)
    kind = jnp.broadcast_to(kind, (*health.shape, types))
    return jnp.concatenate([jnp.stack(parts, -1), kind], axis=-1)


def _own(f: Facts, state: ObservableState, body: Array, position: Array) -> Array:
    n_own = smac_actions.n_own_actions(f)
    parts = [body[:, : f.n], jax.nn.one_hot(state.last_action, n_own)]
    if _shows_position(f):
        parts.append(position[:, : f.n])
    if state.facing is not None:
        angle = (2 * math.pi / DIRECTIONS) * state.facing
        parts.append(jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1))
    own = jnp.concatenate(parts, axis=-1)
    return jnp.where(state.alive[:, : f.n, None], own, 0.0)


def _rows(
    f: Facts, state: ObservableState, seen_by: View, reach: Array, body: Array
) -> Float[Array, "B N U F"]:
    shape = (*reach.shape, body.shape[-1])
    target = smac_actions.target_index(f, rows_of(f, state), state.last_action)
    aimed = target[..., None] == jnp.arange(f.n + f.m)
    sight = _sight(f, state)
    dx, dy = seen_by.dx / sight, seen_by.dy / sight
    distance = seen_by.distance / sight
    relative = jnp.stack([dx, dy, distance, reach, aimed], axis=-1)
    return jnp.concatenate([jnp.broadcast_to(body[:, None], shape), relative], -1)


def _split(n: int, x: Array) -> tuple[Array, Array]:
    """Split units into an observer's slots: the other allies in order, and the enemies."""
    before = np.arange(n - 1)[None] < np.arange(n)[:, None]  # [N, N - 1]
    before = before.reshape(1, n, n - 1, *[1] * (x.ndim - 3))
    return jnp.where(before, x[:, :, : n - 1], x[:, :, 1:n]), x[:, :, n:]


def _can_aim(f: Facts, rows: Rows, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that each ally can attack or support."""
    is_ally = np.arange(f.n + f.m) < f.n
    pairs = take(combatants.flags(f.table, "armed"), rows)[..., : f.n, None] & ~is_ally
    if f.heals:
        pairs = pairs | (_healers(f, rows) & _patients(f, rows))
    if f.wards:
        pairs = pairs | (_warders(f, rows) & _others(f))
    return pairs & _offered(f, rows, seen_by)


def _offered(f: Facts, rows: Rows, seen_by: View) -> Bool[Array, "B N U"]:
    """Return the units that may be targets by life, distance and visibility."""
    if not f.config.action_mask:
        return seen_by.both_alive
    offered = seen_by.both_alive & (seen_by.distance <= _reach(f, rows))
    return offered if seen_by.visible is None else offered & seen_by.visible


def _healers(f: Facts, rows: Rows) -> Any:
    return trait(f, rows[..., : f.n, None], "heal") > 0


def _warders(f: Facts, rows: Rows) -> Any:
    cooldown = take(f.ability("cooldown", "allies"), rows[..., : f.n, None])
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
    alive = state.alive[:, : f.n]
    rows = rows_of(f, state)
    is_here = present(f, state)[:, : f.n]
    n_own = smac_actions.n_own_actions(f)
    own = jnp.broadcast_to(alive[..., None], (*alive.shape, n_own))
    own = own.at[..., 0].set(is_here & ~alive)
    moves = slice(FIRST_MOVE, FIRST_MOVE + len(MOVES))
    own = own.at[..., moves].set(_can_move(f, state) & alive[..., None])
    if f.spots:
        cooldown = take(f.ability("cooldown", "self"), rows[..., : f.n])
        own = own.at[..., n_own - 1].set(alive & (cooldown < np.inf))
    return jnp.concatenate([own, *_targeted(f, rows, reach)], axis=-1)


def _targeted(f: Facts, rows: Rows, reach: Array) -> list[Array]:
    """Return the masks of attacks and of support."""
    allies, enemies = _split(f.n, reach)
    if f.config.layout == "clash":
        return [_clash(f, rows, reach)]
    blocks = [enemies]
    if f.heals:
        patients, _ = _split(f.n, jnp.broadcast_to(_patients(f, rows), reach.shape))
        blocks.append(allies & _healers(f, rows) & patients)
    if f.wards:
        blocks.append(allies & _warders(f, rows))
    return blocks


def _clash(f: Facts, rows: Rows, reach: Array) -> Array:
    """Return the mask of actions that attack enemy j, or heal ally j."""
    if not f.heals:
        return reach[..., f.n :]
    count = max(f.n, f.m)

    def widen(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, count - x.shape[-1])))

    allies, enemies = widen(reach[..., : f.n]), widen(reach[..., f.n :])
    return jnp.where(_healers(f, rows), allies, enemies)


def _can_move(f: Facts, state: ObservableState) -> Bool[Array, "B N 4"]:
    """Return the moves to a cell on the map that the unit can walk on."""
    rows = rows_of(f, state)[..., : f.n]
    position = state.position[:, : f.n, None]
    cell = jnp.trunc(position + MOVES).astype(jnp.int32)
    size = int(MAP_SIZE)
    free = jnp.all((cell >= 0) & (cell < size), axis=-1)
    if f.may(slice(0, f.n), lambda row: row.speed == 0):
        free &= jnp.asarray(trait(f, rows, "speed") > 0)[..., None]
    if f.walkable is None:
        return free
    cell = jnp.clip(cell, 0, size - 1)
    index = cell[..., 0] * size + cell[..., 1]
    if state.choice is not None:
        ground = take(f.ground, state.choice)
        index = index + ground[:, None, None] * size**2
    walks = take(combatants.flags(f.table, "walks"), rows)
    return free & (take(f.walkable.ravel(), index) | ~walks[..., None])
