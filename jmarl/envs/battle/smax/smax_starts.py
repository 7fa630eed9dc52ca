"""Starts of episodes: positions and types of the units, by the random draws of SMAX.

Positions are pushed apart once. Fixed scenarios place the teams at x = 8 and x = 24. Randomized
scenarios (SMACv2 style, Ellis et al. 2023, arXiv 2212.07489, section 4.1) let one team surround
the other or mirror it, with equal probability.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jmarl.envs.batched import select
from jmarl.envs.battle.fused import fused
from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.scenario import BattleConfig, Scenario
from jmarl.envs.battle.state import ABSENT, Spawn, trait
from jmarl.envs.battle.unit_pairs import push_apart
from jmarl.envs.keys import Path, bits_to_uniform, derive_keys, random_bits


SPREAD = 2.0
"""Half the side of the square in which a group of units is scattered."""
CORNERS = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
"""Corners of the map, as fractions of its side."""
SMACV2_OFFSET = 2.0
"""Distance from the center, along each axis, at which SMACv2's diagonals begin."""

# Paths of SMAX's keys below the key of a reset; see ``keys.derive_keys``.
ALLY_NOISE: Path = (1, 1)
ENEMY_NOISE: Path = (1, 2)
KINDS: Path = (1, 0, 0, 1, 1)
EXTRA_KINDS: Path = (1, 0, 0, 1, 0)
IS_SURROUND: Path = (1, 0, 1, 0)
SURROUND: Path = (1, 0, 1, 1)
MIRROR: Path = (1, 0, 1, 2, 1)
MIRROR_EXTRA: Path = (1, 0, 1, 2, 0)
ALLIES_INSIDE: Path = (*SURROUND, 0, 1)
ALLIES_SURROUNDED: Path = (*SURROUND, 1)
ENEMIES_SURROUNDED: Path = (*SURROUND, 2)
# Below the key of either surround.
INSIDE_NOISE: Path = (1,)
OUTSIDE_NOISE: Path = (0, 0, 0, 1)
DIAGONAL_POINTS: Path = (0, 0, 1)
GROUPS: Path = (0, 1)
CHOICE: Path = (2,)
"""Path of the draw among a scenario's choices; SMAX uses only children 0 and 1 of the key."""


def draw_spawns(
    scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]
) -> Spawn:
    """Draw one start per key as ``HeuristicEnemySMAX.reset`` does; leaves ``[B, ...]``.

    If the scenario has choices, the start is that of one choice with the same key.
    """
    if scenario.choices:
        return _draw_choice(scenario, config, keys)
    draw = _draw_randomized if scenario.randomized else _draw_fixed
    spawn = draw(scenario, config, keys)
    position = spawn.position
    rules = scenario.rules
    radius = trait(rules, "radius", spawn.kind)
    everyone = jnp.ones(spawn.kind.shape, bool)
    x, y = fused(
        push_apart, position[..., 0].T, position[..., 1].T, everyone.T, radius.T
    )
    position = jnp.stack([x.T, y.T], axis=-1)
    if config.clip_spawns:
        margin = radius[..., None]
        position = jnp.clip(position, margin, rules.map_size - margin)
    return spawn.replace(position=position)


def _draw_choice(
    scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]
) -> Spawn:
    starts = []
    for choice in scenario.choices:
        start = draw_spawns(choice, config, keys)
        starts.append(_pad_teams(choice, scenario, start))
    words = random_bits(derive_keys(keys, [CHOICE]), 1)
    drawn = jnp.floor(bits_to_uniform(words[0, :, 0]) * len(starts))  # [B]
    start = starts[0]
    for rank, other in enumerate(starts[1:], start=1):
        start = select(drawn == rank, other, start)
    return start


def _pad_teams(choice: Scenario, scenario: Scenario, start: Spawn) -> Spawn:
    """Append absent units to both teams, up to the team sizes of ``scenario``."""
    n = choice.n_allies
    more_allies = scenario.n_allies - n
    more_enemies = scenario.n_enemies - choice.n_enemies

    def append(team: Array, count: int, value: float) -> Array:
        widths = [(0, 0)] * team.ndim
        widths[1] = (0, count)
        return jnp.pad(team, widths, constant_values=value)

    def pad(units: Array, value: float) -> Array:
        allies = units[:, :n]
        enemies = units[:, n:]
        allies = append(allies, more_allies, value)
        enemies = append(enemies, more_enemies, value)
        return jnp.concatenate([allies, enemies], axis=1)

    return Spawn(pad(start.position, 0.0), pad(start.kind, ABSENT))


def _draw_fixed(
    scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]
) -> Spawn:
    """Draw positions in two squares that face each other across the map."""
    leaves = derive_keys(keys, [ALLY_NOISE, ENEMY_NOISE])
    allies, enemies = _uniform_points(
        random_bits(leaves, 2 * _larger_team_size(scenario))
    )
    size, middle = scenario.rules.map_size, scenario.rules.center
    allies = jnp.asarray([[[size / 4, middle]]]) + _scatter(allies)
    enemies = jnp.asarray([[[size / 4 * 3, middle]]]) + _scatter(enemies)
    position = _join_teams(scenario, allies, enemies)
    kind = jnp.asarray([scenario.allies + scenario.enemies], jnp.int32)
    kind = jnp.broadcast_to(kind, (keys.shape[0], scenario.n_units))
    return Spawn(position, kind)


def _draw_randomized(
    scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]
) -> Spawn:
    """Draw types, and the positions of a surround or of a mirror image."""
    larger = _larger_team_size(scenario)
    leaves = derive_keys(keys, _randomized_paths())  # [14, B]
    decisions = random_bits(leaves[:2], 1)[..., 0]
    is_surround = bits_to_uniform(decisions[0]) < 0.5
    allies_inside = (decisions[1] & 1) == 1
    surround_keys = jnp.where(allies_inside, leaves[6:10], leaves[10:14])  # [4, B]
    option_keys = jnp.concatenate([leaves[4:6], surround_keys[3:]])
    n_kinds = scenario.rules.n_unit_types
    options = random_bits(option_keys, n_kinds * larger)  # [3, B, w]
    point_keys = jnp.concatenate([leaves[2:4], surround_keys[:3]])
    points = _uniform_points(random_bits(point_keys, 2 * max(larger, len(CORNERS))))
    if config.smacv2_surround:
        surround = jax.vmap(partial(_smacv2_surround, scenario))(leaves[6])
    else:
        group = _categorical(options[2], len(CORNERS))
        surround = _surround(scenario, points[2:], group, allies_inside)
    mirror = _mirror(scenario, points[0], points[1])
    position = jnp.where(is_surround[:, None, None], surround, mirror)
    return Spawn(position, _draw_kinds(scenario, config, options[0], options[1]))


def _randomized_paths() -> list[Path]:
    """Return the paths to the keys of a randomized start.

    Rows 0 and 1 decide the placement, rows 2 and 3 are for mirrored positions, rows 4 and 5 for
    types. Rows 6 to 9 are for a surround with the allies inside, rows 10 to 13 with the enemies.
    """
    paths = [IS_SURROUND, ALLIES_INSIDE, MIRROR, MIRROR_EXTRA, KINDS, EXTRA_KINDS]
    for inside in (ALLIES_SURROUNDED, ENEMIES_SURROUNDED):
        for path in (INSIDE_NOISE, OUTSIDE_NOISE, DIAGONAL_POINTS, GROUPS):
            paths.append((*inside, *path))
    return paths


def _mirror(
    scenario: Scenario, allies: Float[Array, "B n 2"], extra: Float[Array, "B n 2"]
) -> Float[Array, "B U 2"]:
    """Place the allies in the left half and the enemies at their mirror images.

    Enemies that outnumber the allies are placed anywhere in the right half.
    """
    n_allies = scenario.n_allies
    n_enemies = scenario.n_enemies
    n_extra = max(n_enemies - n_allies, 0)
    size, middle = scenario.rules.map_size, scenario.rules.center
    half = jnp.asarray([[[middle, size]]])
    allies = allies[:, :n_allies] * half
    mirrored = jnp.stack([size - allies[..., 0], allies[..., 1]], axis=-1)
    mirrored = mirrored[:, :n_enemies]
    extra = extra[:, :n_extra] * half
    extra = extra + jnp.asarray([[[middle, 0.0]]])
    return jnp.concatenate([allies, mirrored, extra], axis=1)


def _surround(
    scenario: Scenario,
    draws: Float[Array, "3 B n 2"],
    group: Int[Array, "B n"],
    allies_inside: Bool[Array, "B"],
) -> Float[Array, "B U 2"]:
    """Place one team in the center and scatter the other over a place on each diagonal.

    Args:
        scenario: the teams.
        draws: uniform draws for the inner team, the outer team, and the places on the diagonals.
        group: index of the diagonal of each unit of the outer team.
        allies_inside: whether the allies are the inner team.
    """
    allies_inside = allies_inside[:, None, None]
    fraction = draws[2].reshape(draws.shape[1], -1)  # [B, 2 n]
    fraction = fraction[:, : len(CORNERS), None]
    center, corners = _center_and_corners(scenario.rules)
    places = fraction * center + (1 - fraction) * corners  # [B, 4, 2]
    larger = _larger_team_size(scenario)
    inside = center + _scatter(draws[0, :, :larger])
    place = jnp.take_along_axis(places, group[:, :larger, None], axis=1)
    outside = place + _scatter(draws[1, :, :larger])
    allies = jnp.where(allies_inside, inside, outside)
    enemies = jnp.where(allies_inside, outside, inside)
    return _join_teams(scenario, allies, enemies)


def _smacv2_surround(scenario: Scenario, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place the allies on the center and the enemies in one to four groups.

    The groups are on distinct diagonals. All enemies of a group are on the same spot.
    """
    count_key, group_key, place_key, diagonal_key = jax.random.split(key, 4)
    n_groups = jax.random.randint(count_key, (), 1, len(CORNERS) + 1)
    group = jax.random.randint(group_key, (scenario.n_enemies,), 0, n_groups)
    fraction = jax.random.uniform(place_key, (len(CORNERS), 1))
    center, corners = _center_and_corners(scenario.rules)
    inner_ends = center + SMACV2_OFFSET * np.sign(corners - center)
    places = fraction * inner_ends + (1 - fraction) * corners
    places = jax.random.permutation(diagonal_key, places)
    allies = jnp.tile(center[None], (scenario.n_allies, 1))
    return jnp.concatenate([allies, places[group]])


def _center_and_corners(rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    return np.full(2, rules.center, np.float32), rules.map_size * CORNERS


def _draw_kinds(
    scenario: Scenario,
    config: BattleConfig,
    words: UInt32[Array, "B w"],
    extra_words: UInt32[Array, "B w"],
) -> Int[Array, "B U"]:
    """Draw the types of the allies uniformly; each enemy has the type of the ally of its rank."""
    n_enemies = scenario.n_enemies
    n_extra = max(n_enemies - scenario.n_allies, 0)
    n_kinds = scenario.rules.n_unit_types
    allies = _categorical(words, n_kinds)[:, : scenario.n_allies]
    extra = _categorical(extra_words, n_kinds)[:, :n_extra]
    if not config.draw_extra_enemies:
        extra = jnp.zeros_like(extra)
    return jnp.concatenate([allies, allies[:, :n_enemies], extra], axis=1)


def _categorical(words: UInt32[Array, "B w"], n_options: int) -> Int[Array, "B n"]:
    """Draw from ``n_options`` equally likely options, as often as the words allow.

    SMAX takes the argmax of Gumbel variates. A Gumbel variate increases with the bits from which
    it is computed, so the argmax of the bits is the same option without logarithms.
    """
    count = words.shape[-1] // n_options
    words = words[:, : count * n_options].reshape(-1, count, n_options)
    return jnp.argmax(words >> 9, axis=-1).astype(jnp.int32)


def _uniform_points(words: UInt32[Array, "L B w"]) -> Float[Array, "L B n 2"]:
    """Return points in the unit square."""
    return bits_to_uniform(words).reshape(*words.shape[:2], -1, 2)


def _scatter(points: Float[Array, "B n 2"]) -> Float[Array, "B n 2"]:
    """Map points in the unit square to offsets of at most ``SPREAD`` along each axis."""
    return points * (2 * SPREAD) - SPREAD


def _join_teams(
    scenario: Scenario, allies: Float[Array, "B n 2"], enemies: Float[Array, "B n 2"]
) -> Float[Array, "B U 2"]:
    allies = allies[:, : scenario.n_allies]
    enemies = enemies[:, : scenario.n_enemies]
    return jnp.concatenate([allies, enemies], axis=1)


def _larger_team_size(scenario: Scenario) -> int:
    return max(scenario.n_allies, scenario.n_enemies)
