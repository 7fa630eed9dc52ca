"""Scenes of football, of states that are made by hand."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.game_actions import SHORT_PASS, SHOT
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import ENDS, NOBODY, TIME
from jmarl.envs.football.football_drawing import COLORS, END_TEXTS, background, scene
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios.football_scenario import Player, Scenario
from jmarl.envs.scene import Arc, Line, Rectangle, Sector
from jmarl.saved.frame import view
from jmarl.saved.page import encode_html


KEEPER = Player("GK", -1.0, 0.0)
LEFT = (
    KEEPER,
    Player("CM", 0.6, 0.0),
    Player("CM", 0.7, 0.2),
    Player("CF", 0.7, -0.2),
)
THREE_VS_ONE = Scenario(
    "three_vs_one",
    "",
    (0.62, 0.0),
    LEFT,
    (
        KEEPER,
        Player("CB", -0.75, 0.0),
    ),
)
"""Agents are the players 1 to 3, the right keeper is 4, and the defender 5."""
NEXT = 2
"""A teammate of player 1."""
DEFENDER = 5


@functools.cache
def start_of(scenario=THREE_VS_ONE):
    """Return the setup of a scenario and its first state."""
    setup = Setup(scenario, FootballConfig())
    noise = jnp.zeros((setup.n_players, 2))
    world = first_world(
        setup,
        noise,
        jnp.zeros((), bool),
    )
    return setup, jax.tree.map(np.asarray, world)


def draw(**fields):
    """Return a scene, given other values, or {player: value}, of fields of the state."""
    setup, world = start_of()
    for name, value in fields.items():
        new = np.asarray(value)
        if isinstance(value, dict):
            new = np.array(getattr(world, name))
            players = list(value)
            new[players] = list(value.values())
        world = world.replace(**{name: new})
    return scene(setup, world)


def position(disc, shown):
    """Return the position of a disc that a page shows, in meters."""
    x, y = shown.origin
    assert shown.y_down
    return disc.x - x, y - disc.y


def details_of(disc):
    return dict(disc.details)


def players_of(shown):
    """Return the discs of the players, first those of the left team."""
    players = [disc for disc in shown.discs if disc.name != "ball"]
    return sorted(
        players,
        key=lambda disc: disc.color != COLORS[0],
    )


def ball_of(shown):
    return shown.discs[-1]


def center(shape):
    return shape.x, shape.y


def ends(line):
    return (line.x0, line.y0), (line.x1, line.y1)


def test_players_have_their_number_in_the_team_and_a_name():
    discs = players_of(draw())
    assert [disc.label for disc in discs] == [
        "0",
        "1",
        "2",
        "3",
        "0",
        "1",
    ]
    assert [disc.name for disc in discs] == [
        "GK 0, left",
        "CM 1, agent 0",
        "CM 2, agent 1",
        "CF 3, agent 2",
        "GK 0, right",
        "CB 1, right",
    ]
    assert [disc.agent for disc in discs] == [
        None,
        0,
        1,
        2,
        None,
        None,
    ]
    assert discs[0].color == discs[3].color != discs[4].color == discs[5].color


def test_pages_show_the_positions_of_the_state():
    _, world = start_of()
    shown = draw(ball=(10.0, -20.0, 0.11))
    for disc, *place in zip(
        players_of(shown),
        world.x,
        world.y,
        strict=True,
    ):
        np.testing.assert_allclose(position(disc, shown), place)
    np.testing.assert_allclose(
        position(ball_of(shown), shown),
        (10, -20),
    )


def test_the_bottom_of_football_is_the_bottom_of_the_picture():
    shown = draw(y={1: 30.0, NEXT: -30.0})
    low, high = players_of(shown)[1:3]
    assert low.y < shown.height / 2 < high.y


@pytest.mark.parametrize("owner", range(6))
def test_the_owner_has_a_ring(owner):
    shown = draw(owner=owner)
    discs = players_of(shown)
    ringed = [disc.name for disc in discs if disc.ring]
    assert ringed == [discs[owner].name]
    details = details_of(ball_of(shown))
    assert details["owner"] == discs[owner].name


def test_nobody_has_a_ring_if_nobody_owns_the_ball():
    assert not any(disc.ring for disc in players_of(draw(owner=NOBODY)))


def test_absent_players_are_not_drawn():
    names = [disc.name for disc in players_of(draw(active={3: False, 4: False}))]
    assert names == ["GK 0, left", "CM 1, agent 0", "CM 2, agent 1", "CB 1, right"]


def test_the_ball_is_on_top_at_its_height():
    height = 2.5 + pitch.BALL_RADIUS
    ball = ball_of(draw(ball=(50.0, 3.0, height)))
    assert ball.name == "ball"
    assert ball.height == pytest.approx(2.5)
    assert details_of(ball)["height"] == "2.5 m"
    resting = ball_of(draw())
    assert resting.height == pytest.approx(0)


def test_details_tell_speed_fatigue_kick_and_sticky_actions():
    shown = draw(
        vx={1: 3.0},
        vy={1: 4.0},
        tired={1: 0.25},
        kick={1: SHOT},
        kick_time={1: 0.2},
        direction={1: 6},
        sprint={1: True},
        yellow={1: 1},
        busy=np.zeros(6),
        slide={DEFENDER: 0.3},
    )
    _, agent, _, other, _, defender = map(details_of, players_of(shown))
    assert agent == {
        "speed": "5.0 m/s",
        "fatigue": "25 %",
        "kick": "shot, 0.2 s ago",
        "busy": "-",
        "sticky": "bottom right, sprint",
        "yellow cards": "1",
    }
    assert other["kick"] == other["sticky"] == "-"
    assert defender["busy"] == "slides for 0.3 s"
    assert "sticky" not in defender


def test_a_kick_in_preparation_points_in_its_direction():
    # Up on the screen is negative in football.
    shown = draw(
        kick={1: SHOT},
        kick_x={1: 0.6},
        kick_y={1: -0.8},
    )
    (line,) = shown.lines
    start, end = ends(line)
    kicker = players_of(shown)[1]
    assert start == center(kicker)
    direction = np.subtract(end, start)
    direction /= np.linalg.norm(direction)
    np.testing.assert_allclose(
        direction,
        (0.6, 0.8),
        rtol=1e-5,
    )


def test_an_aimed_pass_points_at_its_receiver():
    shown = draw(
        kick={1: SHORT_PASS},
        kick_to={1: NEXT},
    )
    (line,) = shown.lines
    receiver = players_of(shown)[NEXT]
    assert ends(line)[1] == center(receiver)


def test_a_pass_is_a_line_until_somebody_owns_the_ball():
    flying = draw(
        receiver=NEXT,
        ball=(36.0, 5.0, 0.11),
    )
    (line,) = flying.lines
    receiver = players_of(flying)[NEXT]
    assert ends(line) == (
        center(ball_of(flying)),
        center(receiver),
    )
    assert not draw(receiver=NEXT, owner=NEXT).lines
    assert not draw(receiver=NEXT, active={NEXT: False}).lines


def test_a_slide_has_a_halo():
    shown = draw(slide={DEFENDER: 0.2})
    (halo,) = shown.areas
    defender = players_of(shown)[DEFENDER]
    assert center(halo) == center(defender)
    assert halo.radius > defender.radius


def test_the_caption_has_the_score_the_clock_and_the_end():
    shown = draw(score=(1, 2), steps=34)
    assert shown.caption == "left 1 : 2 right   3.4 s   step 34"
    assert draw(steps=400, end=TIME).caption.endswith("step 400   time is up")
    assert draw(mode=4).caption.endswith("   corner")
    assert set(END_TEXTS) == set(ENDS)


def test_a_step_is_shown_as_long_as_it_lasts():
    assert draw().frame_ms == 100


# The pitch.


class Shape(NamedTuple):
    """A shape of the background in meters from the center of the pitch, without angles."""

    kind: type
    points: frozenset[tuple[float, float]]
    radius: float = 0.0

    def mirrored(self, x, y):
        return self._replace(points=points((x * a, y * b) for a, b in self.points))


def points(pairs):
    return frozenset((round(x, 6) + 0.0, round(y, 6) + 0.0) for x, y in pairs)


def shape_of(shape):
    """Return the measures of a shape of the background."""
    has_ends = isinstance(shape, (Line, Rectangle))
    places = ends(shape) if has_ends else [center(shape)]
    middle = draw().origin
    relative = [np.subtract(place, middle).tolist() for place in places]
    radius = 0.0 if has_ends else shape.radius
    return Shape(type(shape), points(relative), radius)


def upright(x, half_width):
    """Return a line that is parallel to the goal lines."""
    return Shape(
        Line,
        points([(x, -half_width), (x, half_width)]),
    )


@pytest.mark.parametrize(
    ("x", "y"),
    [(-1, 1), (1, -1)],
)
def test_the_markings_are_symmetric(x, y):
    shapes = set(map(shape_of, background().lines))
    assert shapes == {shape.mirrored(x, y) for shape in shapes}


def test_the_pitch_has_the_measures_of_the_core():
    length = pitch.HALF_LENGTH
    shapes = set(map(shape_of, background().lines))
    assert upright(length, pitch.HALF_WIDTH) in shapes
    assert upright(length, pitch.GOAL_HALF_WIDTH) in shapes
    assert upright(pitch.BOX_X, pitch.BOX_Y) in shapes
    circle = Shape(
        Arc,
        points([(0, 0)]),
        pitch.CIRCLE_RADIUS,
    )
    assert circle in shapes
    areas = map(shape_of, background().areas)
    spots = [shape.points for shape in areas if shape.kind is Sector]
    assert points([(length - pitch.PENALTY_SPOT, 0)]) in spots


def arc_ends():
    """Return the ends of the arcs at the penalty areas and corners, in one quarter."""
    found = []
    for arc in background().lines:
        if isinstance(arc, Arc) and arc.angle < math.tau:
            sides = np.asarray([-0.5, 0.5])
            angles = arc.direction + sides * arc.angle
            towards = np.stack(
                [np.cos(angles), np.sin(angles)],
                axis=-1,
            )
            found.append(center(arc) + arc.radius * towards)
    return np.abs(np.concatenate(found) - draw().origin)


def test_arcs_end_on_lines():
    """The arc of a penalty area ends on its edge, and that of a corner on both lines."""
    x, y = arc_ends().T
    assert len(x) == 2 * 6
    on_box = np.isclose(x, pitch.BOX_X)
    on_goal_line = np.isclose(x, pitch.HALF_LENGTH)
    on_touch_line = np.isclose(y, pitch.HALF_WIDTH)
    counts = [flags.sum() for flags in (on_box, on_goal_line, on_touch_line)]
    assert counts == [4, 4, 4]
    assert (on_box | on_goal_line | on_touch_line).all()


# Episodes.


def random_episode(scenario, steps):
    """Return scenes in which every player moves and changes in every step."""
    setup, world = start_of(scenario)
    rng = np.random.default_rng(0)
    players = setup.n_players
    scenes = []
    for step in range(steps + 1):
        drawn = functools.partial(rng.integers, size=players)
        world = world.replace(
            x=np.clip(
                world.x + rng.normal(0, 0.5, players),
                -55,
                55,
            ),
            y=np.clip(
                world.y + rng.normal(0, 0.5, players),
                -36,
                36,
            ),
            vx=rng.normal(0, 4, players),
            tired=world.tired + rng.uniform(0, 2e-3, players),
            kick=np.where(
                rng.random(players) < 0.1,
                drawn(9, 13),
                0,
            ),
            kick_time=rng.uniform(0, 0.5, players),
            direction=drawn(0, 9),
            sprint=drawn(0, 2).astype(bool),
            ball=np.append(
                rng.uniform(-30, 30, 2),
                rng.uniform(0, 3),
            ),
            ball_v=rng.normal(0, 10, 3),
            owner=rng.integers(-1, players),
            receiver=rng.integers(-1, players),
            steps=np.asarray(step),
        )
        scenes.append(scene(setup, world))
    return scenes


def test_a_page_is_small_even_if_everything_changes():
    assert len(encode_html(random_episode(THREE_VS_ONE, 400), "", 100)) < 200_000


def test_a_zoom_shows_the_half_in_which_agents_play():
    """The idle keeper at the other end does not count, unless the ball comes to him."""
    start = draw()
    assert view([start]).left >= start.width / 2 - 1e-6
    far = draw(ball=(-40.0, 0.0, 0.11))
    keeper = players_of(far)[0]
    assert view([far]).left < keeper.x
