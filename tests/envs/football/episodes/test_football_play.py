"""Episodes, records and replays of football, and errors in their arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.config import ConfigError
from jmarl.envs.football import play, replay
from jmarl.envs.football.core.setup import first_world
from jmarl.envs.football.core.world import observable
from jmarl.envs.football.football_env import build, make_setup
from jmarl.envs.football.football_records import restore, row, sticky_rows
from jmarl.envs.football.football_replay import record_row
from jmarl.envs.football.views.entity_view import observe


SCENARIO = "pass_and_shoot_with_keeper"
LIMIT = 40
OPTIONS = {"episode_limit": LIMIT, "start_noise": 1.0}
KEY = jax.random.key(4)
BATCH = 5
SHAPES = {
    "ball": (3,),
    "ballv": (3,),
    "left": (3, 2),
    "leftv": (3, 2),
    "right": (2, 2),
    "rightv": (2, 2),
    "own": (2,),
    "score": (2,),
    "mode": (),
}
"""Shape of a row of each field of a record."""


@pytest.fixture(scope="module")
def played():
    return play(
        SCENARIO,
        "random",
        BATCH,
        KEY,
        record=BATCH,
        **OPTIONS,
    )


@pytest.fixture(scope="module")
def setup():
    return make_setup(SCENARIO, OPTIONS)


@pytest.fixture(scope="module")
def actions(played):
    """Return the actions of all records, and shots after their ends."""
    padded = np.full((BATCH, LIMIT, 2), 12)
    for i, record in enumerate(played["records"]):
        recorded = record["actions"]
        padded[i, : len(recorded)] = recorded
    return padded


@pytest.fixture(scope="module")
def replayed(actions):
    return replay(SCENARIO, actions, KEY, **OPTIONS)


@pytest.fixture(scope="module")
def stepped(setup, actions):
    """Return the states and time steps of the environment, with the keys of ``play``."""
    env = build(setup, "football_x")
    reset, step = jax.jit(env.reset, static_argnums=1), jax.jit(env.step)
    k_reset, k_steps = jax.random.split(KEY)
    results = [reset(k_reset, BATCH)]
    for t, action in enumerate(actions.swapaxes(0, 1)):
        keys = jax.random.split(jax.random.fold_in(k_steps, t))
        state, _ = results[-1]
        results.append(step(keys[1], state, action))
    return results


def close(x, y):
    return np.allclose(x, y, atol=1e-4)


def test_results_are_those_of_one_episode_in_each_environment(played):
    end, length = played["end"], played["length"]
    assert played["n"] == BATCH == len(end)
    assert list(played["ends"]) == ["goal", "conceded", "out", "poss", "time"]
    for reason, count in played["ends"].items():
        assert end.count(reason) == count
    assert played["mean_len"] == pytest.approx(length.mean())
    assert played["win"] == np.mean(played["score"][:, 0] > 0)
    is_late = np.equal(end, "time")
    assert is_late.any()
    assert (length[is_late] == LIMIT).all()


def test_a_record_has_the_names_and_shapes_of_a_recording(played):
    for i, record in enumerate(played["records"]):
        length = played["length"][i]
        shapes = {name: x.shape for name, x in record.items()}
        assert shapes.pop("actions") == (length, 2)
        expected = {name: (length + 1, *shape) for name, shape in SHAPES.items()}
        assert shapes == expected


def shoot(obs, key):
    """Shoot always."""
    return jnp.full(obs.alive.shape, 12)


def test_a_record_is_in_meters_with_the_keeper_first():
    options = OPTIONS | {"start_noise": 0.0}
    record = play(SCENARIO, shoot, 1, KEY, record=1, **options)["records"][0]
    assert (record["actions"] == 12).all()
    first = {name: record[name][0].tolist() for name in SHAPES}
    assert first["left"][0] == [-55, 0]
    assert first["left"][1] == [38.5, 0]
    assert first["left"][2] == pytest.approx([38.5, -25.488])
    assert first["right"][0] == [55, 0]
    assert first["right"][1] == pytest.approx([41.25, -25.488])
    assert first["ball"][:2] == pytest.approx([38.08, -23.408])
    assert first["own"] == [-1, -1]


def test_velocities_are_those_of_the_motion(played):
    for record in played["records"]:
        place, velocity = record["left"], record["leftv"]
        speed = np.diff(place, axis=0) / 0.1
        mean = (velocity[1:] + velocity[:-1]) / 2
        assert np.median(np.abs(speed - mean)) < 0.2


def test_a_replay_of_records_gives_the_records(played, replayed):
    for i, record in enumerate(played["records"]):
        for name in SHAPES:
            expected = record[name]
            again = replayed[name][i]
            assert close(again[: len(expected)], expected), name


def test_rows_after_the_end_repeat_the_last_row(played, replayed):
    for i, length in enumerate(played["length"]):
        ended = np.arange(LIMIT + 1) >= length
        assert np.array_equal(replayed["ended"][i], ended)
        for name in SHAPES:
            rows = replayed[name][i, length:]
            assert (rows == rows[0]).all()


def test_the_environment_has_the_same_transitions_for_the_same_keys(
    setup, replayed, stepped
):
    running = np.ones(BATCH, bool)
    for t, (state, timestep) in enumerate(stepped):
        now = record_row(setup, state)
        for name in SHAPES:
            expected = replayed[name][running, t]
            assert close(now[name][running], expected), (t, name)
        last = np.asarray(timestep.last)
        assert np.array_equal(
            last[running],
            replayed["ended"][running, t],
        )
        running &= ~last
    assert not running.any()


def with_sticky(record):
    """Return the rows of a record with the pressed buttons, as frames."""
    frames = {name: record[name] for name in SHAPES}
    return frames | {"sticky": sticky_rows(record["actions"])}


def restored(setup, record):
    """Return the situations of all rows of a record, as a batch."""
    frames = jax.tree.map(jnp.asarray, with_sticky(record))
    rows = len(record["ball"])
    noise = jnp.zeros((setup.n_players, 2, rows))
    start = first_world(setup, noise, jnp.zeros(rows, bool))
    return restore(setup, start, frames)


def test_a_frame_of_a_record_restored_gives_its_row(setup, played):
    for record in played["records"]:
        world = restored(setup, record)
        for name, values in row(setup, world).items():
            assert close(values, record[name]), name
        assert (world.last_touch == world.owner).all()
        assert np.array_equal(
            world.last_team,
            record["own"][:, 0],
        )
        assert (world.owner < 0).any()


def test_a_frame_of_a_record_restored_gives_its_observations(setup, played, stepped):
    index = int(np.argmax(played["length"]))
    record = played["records"][index]
    world = restored(setup, record)
    states = [observable(state) for state, _ in stepped]
    states = [jax.tree.map(lambda x: x[index], state) for state in states]
    states = states[: len(record["ball"])]
    passed = jax.tree.map(
        lambda *rows: jnp.stack(rows, -1),
        *states,
    )
    # A record has neither fatigue nor the step.
    passed = passed.replace(
        tired=world.tired,
        steps=world.steps,
    )
    see = jax.jit(observe, static_argnums=0)
    seen = jax.tree.leaves(see(setup, observable(world)))
    expected = jax.tree.leaves(see(setup, passed))
    assert all(map(close, seen, expected))


def test_a_replay_from_a_frame_begins_there(played):
    record, at = played["records"][0], 10
    frames = with_sticky(record)
    frames = {name: rows[at][None] for name, rows in frames.items()}
    actions = record["actions"][at : at + 3]
    result = replay(
        SCENARIO,
        actions[None],
        KEY,
        frames=frames,
        **OPTIONS,
    )
    for name, shape in SHAPES.items():
        assert result[name].shape == (1, 4, *shape)
        assert close(result[name][0, 0], record[name][at]), name
    moved = result["left"][0, 1] - record["left"][at + 1]
    assert np.abs(moved).max() < 0.5


def test_buttons_are_pressed_until_they_are_released():
    actions = np.asarray([5, 13, 17, 2, 0, 15, 14, 18])
    rows = sticky_rows(actions[:, None])[:, 0]
    pressed = [np.flatnonzero(row).tolist() for row in rows]
    assert pressed == [
        [],
        [4],
        [4, 8],
        [4, 8, 9],
        [1, 8, 9],
        [1, 8, 9],
        [1, 9],
        [9],
        [],
    ]


def test_the_first_episodes_do_not_depend_on_their_number(played):
    few = play(
        SCENARIO,
        "random",
        2,
        KEY,
        record=1,
        **OPTIONS,
    )
    assert few["end"] == played["end"][:2]
    expected = played["records"][0]
    for name, values in few["records"][0].items():
        assert close(values, expected[name]), name


def test_the_scripted_play_is_the_action_after_the_last():
    result = play(
        SCENARIO,
        "builtin_ai",
        1,
        KEY,
        record=1,
        **OPTIONS,
    )
    record = result["records"][0]
    assert (record["actions"] == 19).all()
    for action in (19, -1):
        actions = np.full((BATCH, LIMIT, 2), action)
        ball = replay(SCENARIO, actions, KEY, **OPTIONS)["ball"][0]
        assert close(
            ball[: len(record["ball"])],
            record["ball"],
        )


def wrong_shape(obs, key):
    """Return one action too few."""
    return jnp.zeros(
        (len(obs.alive), 1),
        int,
    )


@pytest.mark.parametrize(
    ("scenario", "script", "options", "message"),
    [
        ("run_to_scor", "random", {}, "did you mean run_to_score"),
        (SCENARIO, "randm", {}, "script=randm: unknown script; did you mean random"),
        (SCENARIO, "random", {"record": 3}, r"record=3: must lie in \[0, 2\]"),
        (SCENARIO, "random", {"masks": 1}, "env.masks=1: unknown key; did you"),
        (SCENARIO, "random", {"obs": "cd"}, "env.obs='cd': must be one of entity"),
        (SCENARIO, "random", {"opponent": 2}, r"env.opponent=2.*\[0, 1\]"),
        (SCENARIO, "random", {"substeps": 1}, "env.substeps=1: must lie in"),
        (SCENARIO, wrong_shape, {}, r"must return .* \(2, 2\), not \(2, 1\)"),
    ],
)
def test_a_wrong_argument_of_play_is_an_error_of_one_line(
    scenario, script, options, message
):
    with pytest.raises(ConfigError, match=message) as error:
        play(scenario, script, 2, KEY, **options)
    assert "\n" not in str(error.value)


def test_play_needs_an_episode():
    with pytest.raises(ConfigError, match="episodes=0: must be at least 1"):
        play(SCENARIO, "random", 0, KEY)


def frames_of_another_team():
    shapes = SHAPES | {
        "left": (4, 2),
        "leftv": (4, 2),
        "sticky": (3, 10),
    }
    return {name: np.zeros((1, *shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [
        ((1, 2, 3), None, r"actions=\(1, 2, 3\): .* \(B, H, 2\): pass_and"),
        ((2, 2), None, r"actions=\(2, 2\): must have the shape"),
        (
            (1, 2, 2),
            frames_of_another_team(),
            r"frames.left=\(1, 4, 2\): .* \(1, 3, 2\): .* 3 left and 2 right players",
        ),
        ((1, 2, 2), {}, r"frames: ball is missing; .* \(1, 3\)"),
    ],
)
def test_a_wrong_argument_of_replay_is_an_error(shape, frames, message):
    with pytest.raises(ConfigError, match=message):
        replay(
            SCENARIO,
            np.zeros(shape, int),
            KEY,
            frames=frames,
        )
