"""Scenes of battles under the rules of SMAC, of states that are made by hand."""

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from jmarl.envs.battle.scenarios.battle_spec import Zone
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.smac.smac_actions import layout
from jmarl.envs.battle.smac.smac_battle import make_engine
from jmarl.envs.battle.smac.smac_facts import NEVER, Cast, Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.battle.smac.smac_state import Start
from jmarl.envs.registry import make
from jmarl.envs.scene import Rectangle, Sector
from jmarl.saved.page import encode_html


def facts(name, **options):
    return Facts(parse_name(name), SmacConfig(**options))


STALKERS = facts("smac_3s_vs_5z")
"""Allies 0 to 2 are stalkers, and units 3 to 7 zealots, all with shields."""
MMM = facts("smac_MMM")
"""Allies 0 to 1 are marauders, 2 to 8 marines and 9 a medivac; enemies are the same."""
BANES = facts("smac_bane_vs_bane")
"""Allies 0 to 3 are banelings and others zerglings; enemies are the same."""
MEDIVAC, ENEMY_MEDIVAC = 9, 19
FIRST_ENEMY_BANELING = 24


@functools.cache
def start_of(f):
    """Return the function that draws a battle, and a state at step 1 without orders."""
    rng = np.random.default_rng(0)
    units = (1, f.n + f.m)
    position = rng.uniform(8, 24, (*units, 2))
    rows = [max(rows) for rows in f.possible]
    orders = np.zeros((1, f.m), int)
    drawn = Cast(np.asarray([rows]), orders)
    start = Start(
        position.astype(np.float32),
        np.zeros((1, f.m, 2)),
        cast=None if f.cast else drawn,
        arrives=np.zeros(units, int),
        leaves=np.full(units, NEVER),
    )
    engine = make_engine(f)
    state = first_of(engine.first_state(start))
    return engine.scene, state.replace(steps=np.asarray(1))


def first_of(batch):
    return jax.tree.map(lambda x: np.asarray(x)[0], batch)


def draw(f, **fields):
    """Return a scene, given other values, or {index: value}, of fields of the state."""
    scene, state = start_of(f)
    for name, value in fields.items():
        old = np.array(getattr(state, name))
        if isinstance(value, dict):
            for index, entry in value.items():
                old[index] = entry
            value = old
        state = state.replace(**{name: np.asarray(value)})
    return scene(state)


def disc_of(scene, name):
    (disc,) = (disc for disc in scene.discs if disc.name == name)
    return disc


def center(shape):
    return shape.x, shape.y


def ends(line):
    return (line.x0, line.y0), (line.x1, line.y1)


def count(scene):
    return len(sectors_of(scene))


def sectors_of(scene):
    return [area for area in scene.areas if isinstance(area, Sector)]


def texts_of(scene):
    return [entry.text for entry in scene.legend]


# Units.


def test_each_unit_is_a_disc_with_type_team_and_bars():
    scene, state = start_of(MMM)
    discs = scene(state).discs
    assert len(discs) == len({disc.name for disc in discs}) == 20
    radii = [disc.radius for disc in discs]
    assert radii == sorted(radii, reverse=True)
    medivac = disc_of(scene(state), "medivac, ally 9")
    assert medivac.label == "d"
    assert medivac.fill == 1
    (energy,) = medivac.bars
    assert energy.fill == 50 / 200
    marine = disc_of(scene(state), "marine, enemy 2")
    assert marine.label == "m"
    assert not marine.bars
    assert marine.color != medivac.color
    np.testing.assert_allclose(center(marine), state.position[12], rtol=1e-6)


def test_the_disc_of_an_agent_has_its_index_in_any_order_of_discs():
    """A withdrawn agent has no disc."""
    leaves = np.where(np.arange(MMM.n + MMM.m) == 2, 1, NEVER)[None]
    discs = draw(MMM, leaves=leaves[0]).discs
    found = {disc.agent: disc.name for disc in discs if disc.agent is not None}
    assert found.pop(MEDIVAC) == f"medivac, ally {MEDIVAC}"
    assert set(found) == set(range(MMM.n)) - {2, MEDIVAC}
    assert all(name.endswith(f"ally {agent}") for agent, name in found.items())
    assert discs[0].agent == MEDIVAC, "the largest disc is drawn first"


def test_bars_are_fractions_of_the_full_values():
    shield = {0: 8.0, 3: 0.0}
    scene = draw(STALKERS, health={0: 20.0}, shield=shield)
    stalker = disc_of(scene, "stalker, ally 0")
    assert stalker.fill == 20 / 80
    assert stalker.bars[0].fill == 8 / 80
    assert disc_of(scene, "zealot, enemy 0").bars[0].fill == 0
    details = dict(stalker.details)
    assert details["health"] == "20.0 / 80"
    assert details["shield"] == "8.0 / 80"
    assert details["weapon"] == "13 (+5 armored), range 6"


def test_a_dead_unit_is_an_empty_disc_without_lines():
    targets = {0: 3, 1: 3}
    scene = draw(STALKERS, health={0: 0.0}, last_target=targets)
    assert disc_of(scene, "stalker, ally 0").fill == 0
    assert len(scene.lines) == 1


def test_units_that_have_not_arrived_or_were_withdrawn_are_not_drawn():
    arrives = {0: 2, 1: 1}
    leaves = {3: 1, 4: 2}
    scene = draw(STALKERS, arrives=arrives, leaves=leaves)
    names = {disc.name for disc in scene.discs}
    assert len(names) == 6
    assert {"stalker, ally 1", "zealot, enemy 1"} < names
    assert not names & {"stalker, ally 0", "zealot, enemy 0"}


def test_absent_units_are_not_drawn():
    padded = facts("smac_3s_vs_5z", pad=(4, 9))
    assert len(draw(padded).discs) == 8
    drawn = facts("smacv2_terran_5v5")
    row = dict.fromkeys((0, 9), drawn.nobody)
    assert len(draw(drawn, row=row).discs) == 8


def order_of(disc):
    return dict(disc.details)["order"]


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("no_op", "no-op"),
        ("stop", "stop"),
        ("move", "move north"),
        ("turn", "turn to 0 degrees"),
    ],
)
def test_details_have_the_order_of_an_ally(action, text):
    f = facts("smac_3s_vs_5z", cone=True)
    index = action_of(f, action)
    scene = draw(f, last_action={0: index})
    assert order_of(disc_of(scene, "stalker, ally 0")) == text


def action_of(f, name):
    """Return the first action with a name."""
    names = [action.name for action in layout(f)]
    return names.index(name)


def test_details_have_the_target_of_an_order():
    targets = {
        0: 10,
        MEDIVAC: 3,
        10: 2,
        ENEMY_MEDIVAC: 11,
    }
    action = {MEDIVAC: action_of(MMM, "heal")}
    scene = draw(MMM, last_target=targets, last_action=action)
    orders = {disc.name: order_of(disc) for disc in scene.discs}
    assert orders["marauder, ally 0"] == "attack enemy 0"
    assert orders["medivac, ally 9"] == "heal ally 3"
    assert orders["marauder, enemy 0"] == "attack ally 2"
    assert orders["medivac, enemy 9"] == "heal enemy 1"


# Shots and heals.


def test_a_line_is_solid_in_the_steps_with_a_shot():
    # A stalker reloads in 1.87 s and a zealot in 1.2 s; a step lasts 0.5 s.
    targets = {0: 3, 1: 4, 2: 5, 5: 1}
    cooldown = {0: 1.8, 1: 1.2, 5: 1.15}
    scene = draw(STALKERS, last_target=targets, cooldown=cooldown)
    styles = [line.style for line in scene.lines]
    assert styles == ["solid", "dotted", "dotted", "solid"]
    stalker = disc_of(scene, "stalker, ally 0")
    zealot = disc_of(scene, "zealot, enemy 0")
    assert ends(scene.lines[0]) == (center(stalker), center(zealot))
    assert scene.lines[0].color == stalker.color
    assert scene.lines[3].color == zealot.color


HEALERS = pytest.mark.parametrize(
    ("healer", "patient", "name"),
    [
        (MEDIVAC, 3, "marine, ally 3"),
        (ENEMY_MEDIVAC, 13, "marine, enemy 3"),
    ],
)


@HEALERS
def test_a_heal_is_a_dashed_line_and_a_halo(healer, patient, name):
    scene = draw(MMM, last_target={healer: patient}, healing={healer: True})
    (line,), (halo,) = scene.lines, sectors_of(scene)
    healed = disc_of(scene, name)
    assert line.style == "dashed"
    assert line.color == halo.color
    assert ends(line)[1] == center(healed) == center(halo)
    assert halo.radius > healed.radius


@HEALERS
def test_a_healer_out_of_reach_or_energy_has_a_dotted_line(healer, patient, name):
    scene = draw(MMM, last_target={healer: patient})
    (line,) = scene.lines
    assert line.style == "dotted"
    assert ends(line)[1] == center(disc_of(scene, name))
    assert count(scene) == 0


def test_a_colossus_hits_a_line_across_its_shot():
    scene = draw(
        facts("smac_2c_vs_64zg"),
        position={0: (10.0, 10.0), 2: (14.0, 13.0)},
        last_target={0: 2},
        cooldown={0: 1.4},
    )
    shot, splash = scene.lines
    assert ends(shot) == ((10, 10), (14, 13))
    first, last = map(np.asarray, ends(splash))
    np.testing.assert_allclose((first + last) / 2, (14, 13))
    along = last - first
    np.testing.assert_allclose(along @ (4, 3), 0, atol=1e-9)
    # The line reaches 1.25 on either side, and its discs have a radius of 0.15.
    np.testing.assert_allclose(np.hypot(*along), 2.8)


# Bursts.


@pytest.mark.parametrize(
    ("unit", "fields"),
    [
        (0, {"last_action": {0: 3}}),
        (0, {"last_target": {0: FIRST_ENEMY_BANELING}}),
        (FIRST_ENEMY_BANELING, {"last_target": {FIRST_ENEMY_BANELING: 5}}),
    ],
)
def test_a_burst_is_drawn_in_the_step_of_the_death(unit, fields):
    idle = {"last_action": np.zeros(BANES.n, int)}
    dead = {"health": {unit: 0.0}}
    scene = draw(BANES, **idle | fields | dead)
    (burst,) = sectors_of(scene)
    team = "ally" if unit < BANES.n else "enemy"
    baneling = disc_of(scene, f"baneling, {team} 0")
    assert center(burst) == center(baneling)
    assert burst.radius == 2.2
    assert burst.angle == math.tau
    assert count(draw(BANES, **idle | fields)) == 0
    assert count(draw(BANES, **idle | dead)) == 0  # died before


def test_a_zergling_does_not_burst():
    targets = {4: 30}
    assert count(draw(BANES, health={4: 0.0}, last_target=targets)) == 0


def test_a_burst_without_an_order_is_seen_by_the_time_since_the_last_hit():
    f = facts("smac_so_many_baneling")
    draw_dead = functools.partial(draw, f, health={7: 0.0})
    assert count(draw_dead(calm={7: 0.4})) == 1
    assert count(draw_dead(calm={7: 0.5})) == 0


# The ground, views and the legend.


@pytest.mark.parametrize("name", ["smac_corridor", "smac_MMM"])
def test_walls_cover_the_cells_that_cannot_be_walked_on(name):
    f = facts(name)
    walls = np.zeros((32, 32), bool)
    for area in draw(f).areas:
        assert isinstance(area, Rectangle)
        walls[area.x0 : area.x1, area.y0 : area.y1] = True
    np.testing.assert_array_equal(walls, ~f.walkable[0])
    assert "wall" in texts_of(draw(f))


def test_an_open_map_has_no_walls():
    scene = draw(STALKERS)
    assert not scene.areas
    assert "wall" not in texts_of(scene)


def test_zones_are_areas_in_a_color_for_each_effect():
    zones = (
        Zone("slow", 0.5, "rectangle", (1.0, 2.0, 5.0, 6.0)),
        Zone("damage", 3.0, "circle", (20.0, 21.0, 2.5)),
    )
    battle = dataclasses.replace(STALKERS.battle, zones=zones)
    scene = draw(dataclasses.replace(STALKERS, battle=battle))
    slow, damage = scene.areas
    assert slow[:4] == zones[0].bounds
    assert (*center(damage), damage.radius) == zones[1].bounds
    colors = {entry.text: entry.color for entry in scene.legend}
    assert colors["slow zone"] == slow.color
    assert colors["damage zone"] == damage.color != slow.color


def test_the_view_is_a_sector_of_30_degrees():
    f = facts("smac_3s_vs_5z", cone=True)
    scene = draw(f, facing=[3, 0, 11], health={1: 0.0})
    north, last = sectors_of(scene)
    stalker = disc_of(scene, "stalker, ally 0")
    assert center(north) == center(stalker)
    assert north.radius == 9
    angles = [north.angle, north.direction, last.direction]
    np.testing.assert_allclose(angles, np.radians([30, 90, 330]))
    assert "view" in texts_of(scene)


def test_the_legend_explains_what_the_battle_has():
    stalkers, mmm = texts_of(draw(STALKERS)), texts_of(draw(MMM))
    assert stalkers == [
        "ally",
        "enemy",
        "stalker",
        "zealot",
        "health",
        "shield",
        "shot",
        "aim",
    ]
    assert mmm[2:] == [
        *("marauder", "marine", "medivac", "health", "energy"),
        *("shot", "aim", "heal", "wall"),
    ]


@pytest.mark.parametrize(
    ("dead", "text"),
    [
        ([*range(3, 8)], "allies 3   enemies 0   allies win"),
        ([*range(3)], "allies 0   enemies 5   enemies win"),
        ([*range(8)], "allies 0   enemies 0   both teams are beaten"),
        ([0], "allies 2   enemies 5   time is up"),
    ],
)
def test_the_caption_of_the_last_step_has_the_outcome(dead, text):
    health = dict.fromkeys(dead, 0.0)
    assert draw(STALKERS, health=health, ended=True).caption == f"step 1   {text}"
    assert "win" not in draw(STALKERS, health=health).caption


def test_a_team_of_healers_is_beaten():
    health = dict.fromkeys(range(9), 0.0)
    scene = draw(MMM, health=health, ended=True)
    assert scene.caption.endswith("allies 1   enemies 10   enemies win")


def test_two_teams_of_one_healer_are_both_beaten():
    dead = set(range(20)) - {MEDIVAC, ENEMY_MEDIVAC}
    scene = draw(MMM, health=dict.fromkeys(dead, 0.0), ended=True)
    assert scene.caption.endswith("allies 1   enemies 1   both teams are beaten")


def test_units_that_were_withdrawn_are_not_beaten():
    withdrawn = {unit: 1 for unit in range(3)}
    health = dict.fromkeys(withdrawn, 0.0)
    scene = draw(STALKERS, leaves=withdrawn, health=health, ended=True)
    assert scene.caption.endswith("allies 0   enemies 5   time is up")


# Whole episodes.


def random_episode(f, steps):
    """Return scenes in which every unit moves and changes in every step."""
    scene, state = start_of(f)
    rng = np.random.default_rng(1)
    scenes = []
    for step in range(steps + 1):
        shake = rng.normal(0, 0.4, state.position.shape)
        state = state.replace(
            position=np.clip(state.position + shake, 0, 31.9),
            health=state.health * rng.uniform(0.98, 1, state.health.shape),
            cooldown=rng.uniform(0, 1.5, state.health.shape),
            last_target=rng.integers(-1, f.n + f.m, state.health.shape),
            steps=np.asarray(step),
        )
        scenes.append(scene(state))
    return scenes


@pytest.mark.parametrize(("name", "steps"), [("MMM2", 180), ("so_many_baneling", 100)])
def test_a_page_is_small_even_if_everything_changes(name, steps):
    scenes = random_episode(facts(f"smac_{name}"), steps)
    assert len(encode_html(scenes, name, 160)) < 200_000


def play(env):
    """Return the states of an episode in which allies take their last available action."""
    keys = iter(jax.random.split(jax.random.key(0), 200))
    step = jax.jit(env.step)
    state, timestep = env.reset(next(keys), 1)
    states = [state]
    rank = np.arange(env.spec.n_actions)
    while not state.ended[0]:
        action = np.argmax(rank * timestep.obs.avail, axis=-1)
        state, timestep = step(next(keys), state, action)
        states.append(state)
    return list(map(first_of, states))


@pytest.mark.slow
def test_bursts_and_shots_are_those_of_an_episode():
    env = make("smac_so_many_baneling")
    deaths = 0
    for before, after in itertools.pairwise(play(env)):
        scene = env.scene(after)
        died = before.alive & ~after.alive
        assert count(scene) == died[7:].sum()
        deaths += died[7:].sum()
        reloads = (after.cooldown > before.cooldown) & after.alive
        styles = [line.style for line in scene.lines]
        assert styles.count("solid") == reloads[:7].sum()
    assert deaths > 6
