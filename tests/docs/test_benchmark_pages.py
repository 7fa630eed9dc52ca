"""The pages of the benchmarks show every record, and its circumstances."""

import json
import re

import pytest

from docs.generate import benchmarks
from docs.generate.markdown import NOT_RECORDED
from docs.generate.tables import (
    analyses,
    heterogeneous,
    players,
    records,
    timing,
    training,
)
from jmarl.results.zero_shot import compare, estimate, retention


FILES = set(benchmarks.RESULTS.rglob("*.json"))
RECORDS = sorted(FILES - set((benchmarks.RESULTS / "studies").rglob("*.json")))


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


def test_an_unfinished_record_is_named_without_its_figures(tmp_path, monkeypatch):
    """It becomes a page with figures once nothing is left."""
    rows = [{"side": "jmarl", "win rate": 0.789}]
    file = tmp_path / "anchor.json"
    (tmp_path / "anchor.png").touch()
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    for left in (["jmarl, seed 2"], []):
        file.write_text(json.dumps({"unfinished": left, "rows": rows}))
        pages = dict(benchmarks.pages())
        text, index = pages["benchmarks/anchor.md"], pages["benchmarks/index.md"]
        assert ("0.789" in text) == ("anchor.png" in text) == (not left)
        assert ("| `anchor.json` | jmarl, seed 2 |" in text) == bool(left)
        assert ("anchor.json) (unfinished)" in index) == bool(left)


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


def test_each_recorded_part_of_the_cost_of_heterogeneous_teams_has_a_table():
    cost = {"parameters": 10, "flops": 2e6, "temp_bytes": 2**20, "update_ms": 3.0}
    cost |= {"ratio": 1.25, "noise": 0.01}
    times = {"fixed": {"3": 1.0, "27": 1.1}}
    fit = {"intercept": 1.0, "slope": 2.0, "r2": 0.99}
    grown = {"update_ms": {"3": 7.0}, "fit": fit, "compile_s": times}
    arguments = {"env": "smac_MMM2"}
    update = {"arguments": arguments, "update": {"happo": {"base": "mappo", **cost}}}
    arms = {"arms": {"16": {"heads": cost}}}
    growth = {"growth": grown | {"compile_ratio": {"fixed": 1.1}}}
    found = [records.Record("x.json", data) for data in (update, arms, growth)]
    text = heterogeneous.heterogeneous(found)
    assert "on `smac_MMM2`" in text and "| `happo` | `mappo` | 10 | 2.00 |" in text
    assert "| 16 | heads | 10 |" in text and "| 1.25 | 1" in text
    assert "1.00 + 2.00 N ms" in text and "| `fixed` | 1.00 | 1.10 | 1.10 |" in text
    assert "groups" not in heterogeneous.heterogeneous(found[:1])


def test_a_grid_has_one_row_for_each_environment_and_run():
    scores = {"a": [0.9, 0.8], "b": [0.5, 0.6]}
    estimates = {run: estimate(x, 0.0, 1.0) for run, x in scores.items()}

    def one(score):
        cell = {"score": score, "retention": retention(score, score), "update": [3, 4]}
        training = {"env": "battle", "cell": "1 vs 1", **cell}
        envs = {"1 vs 1": cell}
        about = {"system": "ippo", "trained_on": ["battle"]}
        return {**about, "training": training, "envs": envs}

    data = {"grid": "g", "title": "Duels", "metric": "won", "mode": "greedy"}
    data |= {"episodes": 64, "parameters": "best", "cells": {"1 vs 1": {}}}
    data |= {"runs": {run: one(x) for run, x in estimates.items()}}
    data["comparisons"] = compare({run: {"1 vs 1": x} for run, x in estimates.items()})
    text = analyses.grids([records.Record("", data)])
    assert "## g: Duels" in text and "b: ippo trained on battle" in text
    kept = "1.000 [1.000, 1.000]"
    assert f"| 1 vs 1 * | a | 0.850 [0.215, 1.000] | {kept} |   |" in text
    assert f"| 1 vs 1 * | b | 0.550 [0.000, 1.000] | {kept} | -0.300, p 0.0" in text
    assert "Welch's t-test" in text


def test_probes_of_latents_stand_beside_their_controls():
    labels = {"classes": 2, "accuracy": 0.75, "shuffled": 0.5, "shuffled_95": 0.625}
    of = {"silhouette": None, "explained_variance": [0.75, 0.25]}
    of |= {"unit_class": labels, "retreating": labels | {"accuracy": None}}
    data = {"seed": 0, "episodes": 8, "rows": 1200, "mu": of, "latent": of}
    text = analyses.latents([records.Record("", data)])
    assert "seed 0: 8 episodes, 1,200 rows." in text
    assert "| 0 | mu | undefined | unit_class | 2 | 0.750 | 0.500 | 0.625 |" in text
    assert (
        "| 0 | latent | undefined | retreating | 2 | undefined | 0.500 | 0.625 |"
        in text
    )
    assert "| 0 | latent | 0.750, 0.250 |" in text
