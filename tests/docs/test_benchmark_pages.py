"""The pages of the benchmarks show every record, and its circumstances."""

import json
import re

import pytest

from docs.generate import benchmarks
from docs.generate.markdown import NOT_RECORDED
from docs.generate.tables import players, records, timing, training


RECORDS = sorted(benchmarks.RESULTS.rglob("*.json"))


@pytest.fixture(scope="module")
def pages():
    return dict(benchmarks.pages())


@pytest.mark.parametrize("file", RECORDS, ids=benchmarks.relative)
def test_every_record_is_on_one_page_with_its_circumstances(pages, file):
    name = benchmarks.relative(file)
    [page] = [p for p, files in benchmarks.assignments().items() if file in files]
    text = pages[f"benchmarks/{page.name}.md"]
    assert f"](data/{name})" in text
    assert f"](data/{name})" in pages["benchmarks/index.md"]
    host = benchmarks.read(file)["environment"]
    for value in (host["command"], host["commit"], host["device"], host["jax"]):
        assert value in text


def test_every_page_has_more_tables_than_those_of_circumstances(pages):
    for page, files in benchmarks.assignments().items():
        lines = pages[f"benchmarks/{page.name}.md"].splitlines()
        tables = [line for line in lines if re.fullmatch(r" *\|[ :|-]+", line)]
        assert len(tables) > len(files), page.name


def test_every_record_has_a_page_made_for_it():
    assert benchmarks.OTHER not in benchmarks.assignments()


def test_an_unknown_record_is_shown_too(tmp_path, monkeypatch):
    record = {"environment": {"command": "python new.py"}, "speed": {"wall": 2.5}}
    (tmp_path / "new.json").write_text(json.dumps(record))
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    text = dict(benchmarks.pages())["benchmarks/other.md"]
    assert "| `speed.wall` | 2.50 |" in text
    assert "`python new.py`" in text


def test_missing_circumstances_are_not_recorded():
    shown = dict(records.circumstances({"environment": {}}))
    assert set(shown.values()) == {NOT_RECORDED}
    assert {"command", "commit", "device", "seeds", "JAX", "Python"} <= set(shown)


def test_a_commit_with_changes_is_marked():
    host = {"commit": "abc", "dirty": True}
    assert records.commit(host) == "`abc` with uncommitted changes"


def test_pictures_and_records_are_copied():
    targets = [target for target, _ in benchmarks.assets()]
    assert "benchmarks/data/env.json" in targets
    assert "benchmarks/data/learning/smax_3m.png" in targets


def test_sides_are_found_at_any_depth():
    data = {
        "parameters": {"jmarl": 1, "jaxmarl": 2},
        "steps": {"wall": {"jmarl": 3, "jaxmarl": 4}},
        "inputs": {"jmarl": {"agent": 5}, "jaxmarl": {"agent": 6}},
        "ratio": 1.5,
    }
    assert list(timing.sides(data)) == [
        ("parameters", 1, 2),
        ("steps, wall", 3, 4),
        ("inputs, agent", 5, 6),
    ]


def test_a_run_that_missed_its_bar_says_so():
    evaluation = {"greedy/won": [0.5, 0.25, 0.75]}
    run = {
        "run": "ippo",
        "map": "smax_3m",
        "evaluations": [evaluation],
        "absolute": [],
        "env_steps_to_bar": None,
        "final_median": 0.5,
        "best_median": 0.5,
        "wall_seconds": 90,
    }
    row = training.run_row(run)
    assert row[2:] == ("-", "-", "-", "not reached", NOT_RECORDED, "1.5")


def test_the_ablation_shows_each_difference_with_an_interval_that_contains_it():
    def record(run, won):
        return {"run": run, "map": "smax_3m", "absolute": [{"greedy/won": won}]}

    runs = [record("a", [1.0, 1.0]), record("b", [0.0, 0.0]), record("c", [0.8, 1.2])]
    rows = list(training.differences(runs))
    assert rows == [
        ("`smax_3m`", "`a` - `b`", "+1.000", "+1.000 to +1.000"),
        ("`smax_3m`", "`a` - `c`", "+0.000", "-2.541 to +2.541"),
    ]


def test_win_rates_of_scripted_players_have_a_column_for_each_player():
    def won(mean):
        return {"won": [{"mean": mean, "low": mean - 0.1, "high": mean + 0.1}]}

    played = {"results": {"focus": won(0.5), "random": won(0.25)}}
    data = {"players": ["random", "focus"], "envs": {"smac_3m": played}}
    assert list(players.rows(data)) == [
        ("`smac_3m`", "0.250 [0.150, 0.350]", "0.500 [0.400, 0.600]")
    ]
    data |= {"episodes": 64, "seconds": 90, "options": {"pad": 5}}
    text = players.players([records.Record("", data)])
    assert "64 episodes per environment, wall time 1.5 minutes, `env.pad=5`:" in text
