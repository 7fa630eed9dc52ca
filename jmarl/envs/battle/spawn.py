"""How an episode begins: where the units stand, and of which types they are, by SMAX's own draws.

Positions are pushed apart once. Fixed scenarios put the teams at x = 8 and x = 24, drawn ones (SMACv2 style, Ellis et
al. 2023, arXiv 2212.07489, section 4.1) have one team surround the other or mirror it, with equal chances.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from jmarl.envs.batched import select
from jmarl.envs.battle.keys import Path, bits, descend, uniform
from jmarl.envs.battle.physics import push_apart
from jmarl.envs.battle.rules import MAP_SIZE, UNITS, BattleConfig, Scenario
from jmarl.envs.battle.state import ABSENT, Spawn, trait


NOISE = 2.0
"""Half the side of the square over which a group of units is strewn."""
CENTRE = np.full(2, MAP_SIZE / 2, np.float32)
CORNERS = np.asarray(
    [[0, 0], [0, MAP_SIZE], [MAP_SIZE, 0], [MAP_SIZE, MAP_SIZE]], np.float32
)
SMACV2_OFFSET = 2.0
"""Distance from the center, along each axis, at which SMACv2's diagonals begin."""

# Where SMAX's keys lie below the key of a reset; see ``keys.descend``.
ALLY_NOISE, ENEMY_NOISE = (1, 1), (1, 2)
EXTRA_KIND, KIND = (1, 0, 0, 1, 0), (1, 0, 0, 1, 1)
CHOICE = (2,)
"""Of a scenario's choices; a reset of SMAX splits its key in two."""
PLACEMENT = (1, 0, 1)
SURROUNDS = (*PLACEMENT, 0)
SURROUND = (*PLACEMENT, 1)
MIRROR_EXTRA, MIRROR = (*PLACEMENT, 2, 0), (*PLACEMENT, 2, 1)
ALLIES_INSIDE = (*SURROUND, 0, 1)
INSIDE_NOISE, GROUP, PLACE, OUTSIDE_NOISE = (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1)
"""Below the key of whichever team is inside."""


def draw(scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]) -> Spawn:
    """One start for each key, drawn as ``HeuristicEnemySMAX.reset`` does; leaves [B, ...].

    Where a scenario has choices, the start is that of one of them from the same key.
    """
    if scenario.choices:
        return _one_of(scenario, config, keys)
    spawn = (_drawn if scenario.drawn else _fixed)(scenario, config, keys)
    position, radius = spawn.position, trait(UNITS.radius, spawn.kind)
    everybody = jnp.ones(spawn.kind.shape, bool)
    x, y = push_apart(position[..., 0].T, position[..., 1].T, everybody.T, radius.T)
    position = jnp.stack([x.T, y.T], axis=-1)
    if config.clip_spawns:
        position = jnp.clip(position, radius[..., None], MAP_SIZE - radius[..., None])
    return spawn.replace(position=position)


def _one_of(scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]) -> Spawn:
    starts = [
        _padded(choice, scenario, draw(choice, config, keys))
        for choice in scenario.choices
    ]
    drawn = jnp.floor(uniform(bits(descend(keys, [CHOICE]), 1)[0, :, 0]) * len(starts))
    start = starts[0]
    for rank, other in enumerate(starts[1:], start=1):
        start = select(drawn == rank, other, start)
    return start


def _padded(choice: Scenario, scenario: Scenario, start: Spawn) -> Spawn:
    """With absent units after those of either team."""
    n = choice.n_allies
    more = (0, scenario.n_allies - n), (0, scenario.n_enemies - choice.n_enemies)

    def pad(x: Array, value: float) -> Array:
        teams = zip((x[:, :n], x[:, n:]), more, strict=True)
        rest = ((0, 0),) * (x.ndim - 2)
        return jnp.concatenate(
            [jnp.pad(t, ((0, 0), m, *rest), constant_values=value) for t, m in teams],
            axis=1,
        )

    return Spawn(pad(start.position, 0.0), pad(start.kind, ABSENT))


def _fixed(scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]) -> Spawn:
    """Two squares that face each other across the map."""
    allies, enemies = _places(
        bits(descend(keys, [ALLY_NOISE, ENEMY_NOISE]), 2 * _larger(scenario))
    )
    middle = MAP_SIZE / 2
    position = _teams(
        scenario,
        jnp.asarray([[[MAP_SIZE / 4, middle]]]) + _spread(allies),
        jnp.asarray([[[MAP_SIZE / 4 * 3, middle]]]) + _spread(enemies),
    )
    kind = jnp.asarray([scenario.allies + scenario.enemies], jnp.int32)
    return Spawn(position, jnp.broadcast_to(kind, (keys.shape[0], scenario.n_units)))


def _drawn(scenario: Scenario, config: BattleConfig, keys: Key[Array, "B"]) -> Spawn:
    within: list[Path] = [INSIDE_NOISE, OUTSIDE_NOISE, PLACE, GROUP]
    paths = [SURROUNDS, ALLIES_INSIDE, MIRROR, MIRROR_EXTRA, KIND, EXTRA_KIND]
    paths += [(*SURROUND, team, *path) for team in (1, 2) for path in within]
    leaves = descend(keys, paths)
    decisions = bits(leaves[:2], 1)[..., 0]
    surrounds, allies_inside = uniform(decisions[0]) < 0.5, (decisions[1] & 1) == 1
    inside = jnp.where(allies_inside, leaves[6:10], leaves[10:14])
    choices = bits(
        jnp.concatenate([leaves[4:6], inside[3:]]), UNITS.count * _larger(scenario)
    )
    places = _places(
        bits(
            jnp.concatenate([leaves[2:4], inside[:3]]),
            2 * max(_larger(scenario), len(CORNERS)),
        )
    )
    if config.smacv2_surround:
        surround = jax.vmap(lambda key: _smacv2_surround(scenario, key))(leaves[6])
    else:
        group = _largest(choices[2], len(CORNERS))
        surround = _surround(scenario, places[2:], group, allies_inside[:, None, None])
    mirror = _mirror(scenario, places[0], places[1])
    position = jnp.where(surrounds[:, None, None], surround, mirror)
    return Spawn(position, _kinds(scenario, config, choices[0], choices[1]))


def _mirror(scenario: Scenario, allies: Array, extra: Array) -> Float[Array, "B U 2"]:
    """Allies anywhere in the left half, enemies as their mirror image; enemies in excess anywhere in the right half."""
    n_allies, n_enemies = scenario.n_allies, scenario.n_enemies
    half = jnp.asarray([[[MAP_SIZE / 2, MAP_SIZE]]])
    allies = allies[:, :n_allies] * half
    mirrored = jnp.stack([MAP_SIZE - allies[..., 0], allies[..., 1]], axis=-1)[
        :, :n_enemies
    ]
    extra = extra[:, : max(n_enemies - n_allies, 0)] * half + jnp.asarray(
        [[[MAP_SIZE / 2, 0.0]]]
    )
    return jnp.concatenate([allies, mirrored, extra], axis=1)


def _surround(
    scenario: Scenario,
    draws: Float[Array, "3 B n 2"],
    group: Int[Array, "B n"],
    allies_inside: Array,
) -> Float[Array, "B U 2"]:
    """One team in the center, the other strewn over one place on each of the four diagonals."""
    along = draws[2].reshape(draws.shape[1], -1)[:, : len(CORNERS), None]
    places = along * CENTRE + (1 - along) * CORNERS
    larger = _larger(scenario)
    inside = CENTRE + _spread(draws[0, :, :larger])
    outside = jnp.take_along_axis(places, group[:, :larger, None], axis=1) + _spread(
        draws[1, :, :larger]
    )
    return _teams(
        scenario,
        jnp.where(allies_inside, inside, outside),
        jnp.where(allies_inside, outside, inside),
    )


def _smacv2_surround(scenario: Scenario, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Allies on the center, enemies in one to four groups on distinct diagonals, all of a group on one spot."""
    count_key, group_key, place_key, diagonal_key = jax.random.split(key, 4)
    n_groups = jax.random.randint(count_key, (), 1, len(CORNERS) + 1)
    group = jax.random.randint(group_key, (scenario.n_enemies,), 0, n_groups)
    along = jax.random.uniform(place_key, (len(CORNERS), 1))
    inner = CENTRE + SMACV2_OFFSET * np.sign(CORNERS - CENTRE)
    places = jax.random.permutation(diagonal_key, along * inner + (1 - along) * CORNERS)
    return jnp.concatenate(
        [jnp.tile(CENTRE[None], (scenario.n_allies, 1)), places[group]]
    )


def _kinds(
    scenario: Scenario,
    config: BattleConfig,
    choices: UInt32[Array, "B c"],
    extra_choices: UInt32[Array, "B c"],
) -> Int[Array, "B U"]:
    """Types of the allies, drawn uniformly; an enemy has the type of the ally of the same rank."""
    n_allies, n_enemies = scenario.n_allies, scenario.n_enemies
    allies = _largest(choices, UNITS.count)[:, :n_allies]
    extra = _largest(extra_choices, UNITS.count)[:, : max(n_enemies - n_allies, 0)]
    extra = extra if config.draw_extra_enemies else jnp.zeros_like(extra)
    return jnp.concatenate([allies, allies[:, :n_enemies], extra], axis=1)


def _largest(words: UInt32[Array, "B c"], n_options: int) -> Int[Array, "B n"]:
    """Draws out of ``n_options`` equal chances, as many as the words suffice for.

    SMAX takes the largest of Gumbel variates; those rise with the bits they are made of, so the
    largest bits name the same option without the logarithms.
    """
    count = words.shape[-1] // n_options
    words = words[:, : count * n_options].reshape(-1, count, n_options)
    return jnp.argmax(words >> 9, axis=-1).astype(jnp.int32)


def _places(words: UInt32[Array, "L B w"]) -> Float[Array, "L B n 2"]:
    return uniform(words).reshape(*words.shape[:2], -1, 2)


def _spread(places: Float[Array, "B n 2"]) -> Float[Array, "B n 2"]:
    return places * (2 * NOISE) - NOISE


def _teams(scenario: Scenario, allies: Array, enemies: Array) -> Float[Array, "B U 2"]:
    return jnp.concatenate(
        [allies[:, : scenario.n_allies], enemies[:, : scenario.n_enemies]], axis=1
    )


def _larger(scenario: Scenario) -> int:
    return max(scenario.n_allies, scenario.n_enemies)
