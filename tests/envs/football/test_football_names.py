"""Names, listed and generated scenarios of football, and errors in scenarios of users."""

import subprocess
import sys

import numpy as np
import pytest
from recordings import SCENARIOS as RECORDED
from recordings import load_recordings, split_name

from jmarl import envs
from jmarl.config import ConfigError
from jmarl.envs.football import SCENARIOS, Player, Scenario, register
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios import football_names as names


KEEPER = Player("GK", -1.0, 0.0)
STRIKER = Player("CF", 0.5, 0.0)


@pytest.fixture
def registered(monkeypatch):
    """Undo registrations after the test."""
    monkeypatch.setattr(names, "SCENARIOS", dict(SCENARIOS))


def scenario(
    name="mine",
    left=(KEEPER, STRIKER),
    right=(KEEPER,),
    **fields,
):
    return Scenario(
        name, "a test", fields.pop("ball", (0.5, 0.0)), left, right, **fields
    )


def test_starts_are_those_of_the_recordings():
    first = {split_name(name)[0]: record for name, record in load_recordings().items()}
    assert set(first) == set(RECORDED)
    for name, record in first.items():
        setup = Setup(SCENARIOS[name], FootballConfig())
        start = np.stack(setup.start(), axis=-1)
        recorded = np.concatenate([record["left"][0], record["right"][0]])
        assert np.allclose(start, recorded, atol=0.01), name
        ball = np.multiply(
            setup.scenario.ball,
            (54.4, 83.6),
        )
        assert np.allclose(ball, record["ball"][0, :2], atol=0.01), name


def test_the_duration_of_the_engine_is_one_step_longer_than_its_number():
    lengths = [len(record["actions"]) for record in load_recordings().values()]
    assert SCENARIOS["empty_goal"].limit == 401
    assert max(lengths) <= 401


def test_the_rule_for_team_sizes_contains_the_scenario_of_the_engine():
    known = SCENARIOS["3_vs_1_with_keeper"]
    assert [player[:3] for player in known.left[1:]] == [
        ("CM", 0.6, 0.0),
        ("CM", 0.7, 0.2),
        ("CM", 0.7, -0.2),
    ]
    assert known.right[1:] == (Player("CB", -0.75, 0.0),)
    assert known.ball == (0.62, 0.0)


def test_every_team_size_has_distinct_places_on_the_pitch():
    for n in range(2, 11):
        for m in range(11):
            sized = names.get_scenario(f"football_{n}_vs_{m}_with_keeper")
            assert (sized.n_agents, len(sized.right)) == (n, m + 1)
            for team in (sized.left, sized.right):
                assert len({player[1:3] for player in team}) == len(team)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1_vs_1_with_keeper", r"attackers=1: must lie in \[2, 10\]"),
        ("3_vs_11_with_keeper", r"defenders=11: must lie in \[0, 10\]"),
        ("3_vs_1_with_keepr", "unknown scenario; did you mean 3_vs_1_with_keeper"),
        ("03_vs_1_with_keeper", "unknown scenario; did you mean 3_vs_1_with_keeper"),
        ("football_cornr", "unknown scenario; did you mean corner"),
    ],
)
def test_a_wrong_name_is_an_error_with_the_nearest_one(name, message):
    with pytest.raises(ConfigError, match=message):
        names.get_scenario(name)


def test_an_unknown_environment_suggests_football():
    with pytest.raises(ValueError, match="did you mean football_corner"):
        envs.make("football_cornerr")


def test_all_listed_names_match_and_others_do_not():
    listed = [name for name, _ in names.names()]
    assert len(set(listed)) == len(listed) and all(map(names.matches, listed))
    assert names.matches("football_7_vs_4_with_keeper")
    assert names.matches("football_7_vs_44_with_keeper")  # get_scenario has the error
    assert not names.matches("football_nothing") and not names.matches("corner")


def test_a_registered_scenario_is_an_environment(registered):
    register(scenario())
    register(scenario())  # the same one again
    assert names.matches("football_mine")
    assert ("football_mine", "a test") in envs.names()
    with pytest.raises(ConfigError, match="the name is taken"):
        register(scenario(limit=10))


@pytest.mark.parametrize(
    "name",
    ["corner", "4_vs_4_with_keeper", "football_x", "a-b"],
)
def test_names_that_are_taken_or_wrong_cannot_be_registered(registered, name):
    with pytest.raises(ConfigError, match=f"scenario={name!r}: "):
        register(scenario(name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"right": (KEEPER,) + (STRIKER,) * 11},
            "right='12 players': must have 1 to 11 players",
        ),
        ({"left": (KEEPER,)}, "left='1 players': must have 2 to 11 players"),
        ({"left": (STRIKER, KEEPER)}, "left='CF': the first player must be the GK"),
        (
            {"left": (KEEPER, Player("CF", 0.5, 0.5))},
            r"left\[1\]=CF\(0.5, 0.5\): off the pitch; .* \|y\| at most 0.4237",
        ),
        (
            {"left": (KEEPER, Player("XX", 0.5, 0.0))},
            r"left\[1\]='XX': must be one of GK",
        ),
        ({"ball": (1.1, 0.0)}, r"ball=\(1.1, 0.0\): must be on the pitch"),
        ({"limit": 0}, "limit=0: must be at least 1"),
        ({"difficulty": 2.0}, r"difficulty=2.0: must lie in \[0, 1\]"),
    ],
)
def test_a_wrong_scenario_is_an_error_of_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as error:
        scenario(**fields)
    assert "\n" not in str(error.value)


def test_scenarios_and_options_do_not_import_jax():
    code = (
        "import sys; import jmarl.envs.football.football_options; "
        "from jmarl.envs.football import SCENARIOS, Player, Scenario, register; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
    )


def test_other_modules_do_not_import_jaxmarl():
    code = (
        "import sys; from jmarl.envs import football; from jmarl import envs; "
        "football.play, football.replay, envs.make('football_corner'); "
        "assert 'jaxmarl' not in sys.modules; from jmarl.envs.football import jaxmarl"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
    )
