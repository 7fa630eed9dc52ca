"""Walls and cliffs: walkers stop and slide, flyers and colossi cross, nobody is pushed through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path
from smac_worlds import NORTH, SOUTH, STOP, Arena, arena

from jmarl.envs import make
from jmarl.envs.battle.combat.paths import next_cells
from jmarl.envs.battle.scenarios.scenario_file import load_map
from jmarl.envs.battle.scenarios.terrain import get_terrain, walkable
from jmarl.envs.conformance import random_action


SIZE = 32


WALKERS = ("marine", "zealot", "zergling")
CROSSERS = ("medivac", "colossus")
# Terrain, start and direction: walls lie north of y = 24, and at y 12 of the ravine.
WALLS = {"strip": (16.0, 23.5, NORTH, 24.0), "ravine": (16.0, 11.5, NORTH, 12.0)}


@pytest.mark.parametrize("terrain", list(WALLS))
def test_walls_stop_walkers_only(terrain):
    x, y, action, wall = WALLS[terrain]
    case = arena(terrain).case()
    units = {}
    for k, name in enumerate((*WALKERS, *CROSSERS)):
        units[name] = case.ally(name, x - 4.0 + 2 * k, y)
        case.move(units[name], action)
    state = arena(terrain).run([case], steps=4).state
    for name, unit in units.items():
        is_stopped = state.position[-1, 0, unit, 1] < wall
        assert is_stopped == (name in WALKERS), name


def test_a_colossus_crosses_the_cliff_of_the_ravine_in_both_directions():
    case = arena("ravine").case()
    south = case.ally("colossus", 16.0, 14.0)
    north = case.ally("colossus", 20.0, 10.5)
    case.move(south, SOUTH)
    case.move(north, NORTH)
    y = arena("ravine").run([case], steps=3).state.position[-1, 0, [south, north], 1]
    assert y == pytest.approx([14 - 3 * 1.125, 10.5 + 3 * 1.125], abs=1e-3)
    cells = walkable(arena("ravine").facts.battle.terrain)
    assert not cells[4:28, 12].any()


@pytest.mark.parametrize("terrain", list(WALLS))
def test_a_walker_slides_along_a_wall(terrain):
    """A zealot approaches a target diagonally behind the wall."""
    x, *_, wall = WALLS[terrain]
    case = arena(terrain).case()
    zealot = case.ally("zealot", x, wall - 0.01)
    target = case.enemy("colossus", x + 6.0, wall + 6.0)
    case.aim(zealot, target)
    walk = arena(terrain).run([case]).walk(0, zealot)
    # The colossus walks, too, so the direction is not exactly that of the diagonal.
    assert walk[0] == pytest.approx(1.125 / np.sqrt(2), abs=0.15)
    assert 0 <= walk[1] < 0.01


def test_weapons_reach_over_walls():
    case = arena("ravine").case()
    stalker = case.ally("stalker", 12.0, 11.0)
    target = case.enemy("stalker", 12.0, 14.0, cooldown=0.0)
    case.aim(stalker, target)
    colossus = case.ally("colossus", 20.0, 13.2)
    case.enemy("zergling", 20.0, 11.9, cooldown=0.0)
    trace = arena("ravine").run([case])
    assert trace.lost(0, target) == 18
    assert trace.lost(0, stalker) == 18
    assert trace.lost(0, colossus) == 5


def test_a_pile_of_units_at_a_wall_is_not_pushed_through_it():
    case = arena("ravine").case()
    rng = np.random.default_rng(0)
    names = ["zealot"] * 4 + ["marine"] * 3 + ["baneling"] * 3 + ["zergling"] * 2
    units = []
    for name in names:
        x, y = 16 + 0.3 * rng.random(2)
        units.append(case.ally(name, x, y - 4.35))
        case.move(units[-1], NORTH)
    trace = arena("ravine").run([case], steps=6)
    assert (trace.state.position[0, 0, units, 1] > 11.6).all()
    assert (trace.state.position[..., 0, units, 1] < 12).all()
    assert abs(trace.walk(0, units[0])).max() > 0.1


def test_enemies_walk_around_the_cliff():
    """Zerglings on the low ground reach a colossus on the plateau, and stay out of the wall."""
    battle = Arena(
        "terrain: ravine\nallies: [{units: {colossus: 1}, at: [16, 16]}]\n"
        "enemies: [{units: {zergling: 3}, at: [16, 9]}]\norders: pursue\n"
    )
    action = np.full((battle.start.health.shape[0], 1), STOP)
    trace = battle.play(jax.tree.map(jnp.asarray, battle.start), [action] * 30)
    assert (trace.state.position[-1, :, 1:, 1] > 13).all()
    assert (trace.state.shield[-1, :, 0] < 150).all()
    cells = walkable(battle.facts.battle.terrain)
    place = trace.state.position[..., 1:, :].astype(int)
    assert cells[place[..., 0], place[..., 1]].all()


def geodesic(cells: np.ndarray) -> np.ndarray:
    """Return the lengths of shortest paths between all cells.

    Steps lead over edges, and over corners that no wall touches.
    """
    index = np.arange(cells.size).reshape(cells.shape)
    graph = np.zeros((cells.size, cells.size))
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
        here = index[: SIZE - dx, max(0, -dy) : SIZE - max(0, dy)]
        there = index[dx:, max(0, dy) : SIZE + min(0, dy)]
        # The four cells around a corner, or the two cells on either side of an edge.
        corners = here, here + SIZE * dx, here + dy, there
        free = np.all([cells.ravel()[cell] for cell in corners], axis=0)
        graph[here[free], there[free]] = np.hypot(dx, dy)
    return shortest_path(graph, directed=False)


@pytest.mark.parametrize("name", ["ravine", "corridor", "diagonal"])
def test_ways_around_walls_are_shortest_paths(name):
    cells = walkable(get_terrain(name))
    table = next_cells(get_terrain(name))
    length = geodesic(cells)
    rng = np.random.default_rng(0)
    starts, goals = rng.choice(np.flatnonzero(cells.ravel()), (2, 4000))
    steps = table[starts, goals]
    detours = steps >= 0
    assert detours.any()
    rest = length[steps[detours], goals[detours]]
    first = length[starts[detours], steps[detours]]
    assert (first < 1.5).all()
    assert np.allclose(first + rest, length[starts[detours], goals[detours]])
    # Elsewhere a path is as long as on the open map, so that no wall is in the way.
    apart = [np.divmod(goal, SIZE) for goal in (starts[~detours], goals[~detours])]
    dx, dy = np.abs(np.subtract(*apart))
    octile = np.maximum(dx, dy) + (np.sqrt(2) - 1) * np.minimum(dx, dy)
    assert np.allclose(length[starts[~detours], goals[~detours]], octile)


class WallWatch:
    """Check of the positions in consecutive steps of a battle."""

    LONGEST_DETOUR = 4.0
    """Difference between the ways along and across a wall that no step exceeds.

    A step walks at most 1.5, and may be pushed as far, so it does not lead around a wall.
    """

    def __init__(self, name: str) -> None:
        battle = load_map(name)
        kinds = [kind for kind, _ in battle.roster(battle.allies)]
        kinds += [kind for kind, _ in battle.roster(battle.enemies)]
        units = [battle.units[kind] for kind in kinds]
        self.walks = np.asarray([not (unit.flies or unit.colossal) for unit in units])
        self.cells = walkable(battle.terrain)
        self.detour = geodesic(self.cells)

    def check(self, before: np.ndarray, after: np.ndarray) -> None:
        """Check positions ``[..., U, 2]`` of two consecutive states of one episode."""
        start, end = (x[..., self.walks, :].astype(int) for x in (before, after))
        assert self.cells[end[..., 0], end[..., 1]].all()
        straight = np.linalg.norm(end - start, axis=-1)
        indices = [place @ [SIZE, 1] for place in (start, end)]
        along = self.detour[tuple(indices)]
        assert (along - straight).max() < self.LONGEST_DETOUR


def play_random_episodes(name: str, batch: int, steps: int) -> int:
    """Check the walls in random episodes, until each environment has ended one."""
    env = make(f"smac_{name}")
    step = jax.jit(env.step)
    act = jax.jit(lambda key, timestep: random_action(key, timestep, env.spec))
    key = jax.random.key(0)
    watch = WallWatch(name)
    state, timestep = jax.jit(env.reset, static_argnums=1)(key, batch)
    ended = np.zeros(batch, bool)
    for t in range(steps):
        keys = jax.random.split(jax.random.fold_in(key, t))
        before = np.asarray(state.position)
        state, timestep = step(keys[0], state, act(keys[1], timestep))
        goes_on = ~np.asarray(timestep.first)
        watch.check(before[goes_on], np.asarray(state.position)[goes_on])
        ended |= np.asarray(timestep.last)
        if ended.all():
            break
    return int(ended.sum())


@pytest.mark.parametrize("name", ["corridor", "2m_vs_1z"])
def test_no_unit_crosses_a_wall_in_a_few_random_steps(name):
    play_random_episodes(name, batch=8, steps=25)


WALLED = {
    "3m": 100,
    "MMM2": 60,
    "1c3s5z": 60,
    "2m_vs_1z": 200,
    "6h_vs_8z": 100,
    "2s_vs_1sc": 100,
    "corridor": 120,
    "so_many_baneling": 120,
    "bane_vs_bane": 80,
    "2c_vs_64zg": 60,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WALLED))
def test_no_unit_crosses_a_wall_in_1000_random_episodes(name):
    assert sum(WALLED.values()) == 1000
    limit = load_map(name).limit
    assert play_random_episodes(name, WALLED[name], limit + 1) == WALLED[name]


def test_the_watch_detects_a_step_through_a_wall():
    watch = WallWatch("2c_vs_64zg")
    before = np.full((66, 2), (16.5, 11.9))
    after = before + np.asarray([0.0, 1.2])
    watch.check(before, before + np.asarray([0.9, 0.0]))
    with pytest.raises(AssertionError):
        watch.check(before, after)
