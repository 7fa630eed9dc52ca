"""Tests of the benchmark of football: parts of a step, memory, and bounds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.football import __main__ as program
from benchmarks.football import football_profile
from benchmarks.support import common
from docs.generate.tables import football
from docs.generate.tables.records import Record
from jmarl.envs import make


NAME = "football_3_vs_1_with_keeper"


def equations():
    env = make(NAME)
    key = jax.random.key(0)
    state, _ = jax.eval_shape(lambda: env.reset(key, 2))
    step = jax.make_jaxpr(env.step)(key, state, jnp.zeros((2, 3), jnp.int32))
    return str(step).count(" = ")


def test_a_step_without_a_part_is_shorter_and_the_parts_come_back():
    whole = equations()
    for part in football_profile.PARTS:
        with football_profile.left_out(part):
            assert equations() < whole, part
    assert equations() == whole


def test_eleven_players_fit_within_the_bounds_of_memory():
    *_, largest = program.memory(())
    assert largest["state_bytes"] <= program.MOST_STATE_BYTES
    assert largest["bytes"] <= program.MOST_REPLAY_BYTES < largest["uncompressed_bytes"]


def test_bounds_are_those_of_the_scenarios():
    row = {"envs": 64, "compile_s": 31.0, "ratio": 50.0}
    costs = [row | {"scenario": name} for name in program.ENGINE_STEPS]
    largest = {"scenario": "largest", "state_bytes": 1999.0, "bytes": 1501}
    tables = {"costs": costs, "memory": [largest]}
    met = [row["met"] for row in program.bounds(tables)]
    assert met == [False, False, True, False, True, False]


@pytest.mark.slow
def test_small_benchmark_from_arguments_to_record_and_page(
    monkeypatch, capsys, tmp_path
):
    out = tmp_path / "football.json"
    small = ["scenarios=empty_goal", "envs=2", "length=3", "repeats=2", "profile=2"]
    monkeypatch.setattr("sys.argv", ["football", *small, f"out={out}"])
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 1e-3)
    monkeypatch.setattr(program, "prepare", lambda: None)
    assert program.main() == 0
    record = json.loads(out.read_text())
    assert [len(record[table]) for table in football.COSTS] == [1, 2, 1, 3]
    assert np.isfinite(
        [record["parts"][0][part] for part in football_profile.PARTS]
    ).all()
    page = football.costs([Record("football.json", record)])
    assert page.count("## ") == 4
    assert "| empty_goal | 2 |" in capsys.readouterr().out
