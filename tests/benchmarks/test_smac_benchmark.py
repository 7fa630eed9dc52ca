"""Tests of the benchmark of SMAC's battles: parts of a step, replay steps, and SMAClite."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import smac
from benchmarks.support import common, costs, step_profile
from benchmarks.support.smaclite_peer import Episodes, SMAClite
from docs.generate.tables import timing
from docs.generate.tables.records import Record
from jmarl.envs import make


def trace(variant: str):
    """Return the program of one step of a variant."""
    with step_profile.changed(variant):
        env = make("smac_3m")
        key = jax.random.key(0)
        state, _ = jax.eval_shape(lambda: env.reset(key, 2))
        return jax.make_jaxpr(env.step)(key, state, jnp.zeros((2, 3), jnp.int32))


def loop_lengths(program) -> list[int]:
    return [int(n) for n in re.findall(r"length=(\d+)", str(program))]


def equations(program) -> int:
    return str(program).count(" = ")


def test_a_step_with_further_ticks_has_twice_as_many():
    whole, further = trace("whole"), trace(step_profile.FURTHER_TICKS)
    assert (8 in loop_lengths(whole), 16 in loop_lengths(further)) == (True, True)
    assert 8 not in loop_lengths(further)


def test_each_part_that_is_left_out_makes_the_step_smaller():
    whole = equations(trace("whole"))
    for part in step_profile.FUNCTIONS:
        assert equations(trace(part)) < whole - 20, part
    assert equations(trace("whole")) == whole


def test_a_trajectory_without_observations_has_the_same_states():
    env = make("smac_3m")
    path = step_profile.record(env, 2, 70)
    state, timestep = step_profile.compile_steps(env, path)()
    with step_profile.changed("observation"):
        same, blank = step_profile.compile_steps(make("smac_3m"), path)()
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(timestep.obs.own) and not np.any(blank.obs.own)
    assert 0 < path.steps <= 2 * 70


def test_shares_are_those_of_parts_that_add_up():
    parts = {"ticks": 5.0, "observation": 2.0, "opponents": 3.0, "starts": 1.0}
    parts |= {"rest": 1.5, "actions": 7.5}
    whole = sum(parts.values()) - parts["actions"]
    us = {"drawn": 20.0, "whole": whole}
    us |= {part: whole - parts[part] for part in step_profile.FUNCTIONS}
    us[step_profile.FURTHER_TICKS] = us["starts"] + parts["ticks"]
    expected = {part: time / 20 for part, time in parts.items()}
    assert step_profile.shares(us) == pytest.approx(expected)


def test_a_replay_step_has_the_units_actions_reward_and_flags():
    """In MMM2 units have energy, and in 2c_vs_64zg shields; both are float32."""
    for name, allies, enemies in (("smac_MMM2", 10, 12), ("smac_2c_vs_64zg", 2, 64)):
        position_health_cooldown_gauge = 5 * 4
        encoded = (allies + enemies) * position_health_cooldown_gauge
        last_action_and_step = 4 * allies + 4
        action_reward_flags = 4 * allies + 4 + 3
        row = costs.replay_bytes(make(name))
        assert row["bytes"] == encoded + last_action_and_step + action_reward_flags
        assert row["bytes"] <= smac.MOST_BYTES[name] < row["uncompressed_bytes"]


FAKE = """
class SMACliteEnv:
    def __init__(self, map_info, seed):
        self.map_info = map_info

    def seed(self, seed):
        self.episode = 0

    def reset(self):
        self.episode += 1
        self.steps = 0

    def get_avail_actions(self):
        return [[0, 1, 0, 1], [1, 0, 0, 0]]

    def step(self, actions):
        first, second = actions
        assert first in (1, 3) and second == 0 and type(first) is int
        self.steps += 1
        return None, 0.0, self.steps == 10 * self.episode, False, {}
"""
FAKE_MAPS = """
import enum
import types

class MapPreset(enum.Enum):
    THREE = types.SimpleNamespace(name="3m")
"""


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout with SMAClite's interface: episode i has 10 i steps and no limit."""
    maps = tmp_path / "smaclite" / "env" / "maps"
    maps.mkdir(parents=True)
    (maps.parent / "__init__.py").write_text(FAKE)
    for folder in (maps, tmp_path / "smaclite"):
        (folder / "__init__.py").write_text("")
    (maps / "map.py").write_text(FAKE_MAPS)
    return str(tmp_path)


def test_smaclite_plays_available_actions_in_whole_episodes_up_to_the_limit(checkout):
    peer = SMAClite(checkout, sys.executable)
    assert peer.names() == ("3m",)
    episodes = peer.play("3m", limit=25, seconds=0.0, episodes=4)
    assert episodes[:2] == (10 + 20 + 25 + 25, 4)
    assert episodes.cpu_s > 0


def test_folder_without_smaclite_is_rejected_on_one_line(tmp_path):
    with pytest.raises(SystemExit, match="No module named 'smaclite'; must be a") as e:
        SMAClite(str(tmp_path), sys.executable).names()
    assert "\n" not in str(e.value)
    with pytest.raises(SystemExit, match="peer_python=none/python: No such file"):
        SMAClite(str(tmp_path), "none/python").names()


def test_rates_are_compared_over_the_same_steps_and_the_shorter_time_counts():
    cells = smac.peer_cells(40_000.0, Episodes(300, 2, 3.0), Episodes(300, 2, 4.0))
    assert cells["smaclite_steps_per_cpu_s"] == 100
    assert cells["ratio"] == 400
    assert cells["smaclite_noise"] == pytest.approx(1 / 3)
    with pytest.raises(SystemExit, match="300 steps, and then 299"):
        smac.peer_cells(1.0, Episodes(300, 2, 3.0), Episodes(299, 2, 3.0))


def test_a_figure_beyond_its_bound_is_not_met():
    twin = {"map": "10m_vs_11m", "envs": 64}
    cost = {"map": "smac_MMM2", "envs": 64, "compile_s": 15.1}
    peer = {"map": "3s5z", "envs": 64, "ratio": 200.0}
    tables = {
        "twins": [{**twin, "ratio": 1.5}, {**twin, "ratio": 1.51}],
        "costs": [cost, {**cost, "map": "smac_3m"}],
        "replay": [{"map": "smac_MMM2", "bytes": 1501}],
        "peer": [peer, {**peer, "ratio": 199.0}],
    }
    met = [row["met"] for row in smac.bounds(tables)]
    assert met == [True, False, False, False, True, False]


@pytest.mark.slow
def test_small_benchmark_from_arguments_to_record_and_page(
    monkeypatch, capsys, tmp_path, checkout
):
    out = tmp_path / "smac.json"
    small = ["maps=smac_3m", "twins=3m", "envs=2", "length=3", "repeats=2", "profile=2"]
    small += [f"peer={checkout}", "peer_maps=3m", "peer_seconds=0", f"out={out}"]
    monkeypatch.setattr("sys.argv", ["smac", *small])
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 1e-3)
    monkeypatch.setattr(smac, "prepare", lambda: None)
    assert smac.main() == 0
    record = json.loads(out.read_text())
    assert [len(record[table]) for table in timing.SMAC_TABLES] == [2, 1, 1, 1, 1, 1]
    shown = [record["parts"][0][part] for part in ("ticks", "opponents", "rest")]
    assert np.all(np.isfinite(shown))
    page = timing.smac([Record("smac.json", record)])
    assert page.count("## ") == 6
    assert "| 3m over SMAClite, 2 envs |" in capsys.readouterr().out
    without = timing.smac([Record("smac.json", {**record, "peer": []})])
    assert "SMAClite's noise" in page and "SMAClite's noise" not in without
