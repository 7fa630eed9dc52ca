"""``jmarl.results.load``: one row per run, seed and evaluation, and no run is dropped silently."""

import json
import shutil
import warnings

import pytest
from planted_runs import EPISODES, STEPS, plant, rising

import jmarl.results
from jmarl.config import ConfigError
from jmarl.saved.comparison.run_table import FIXED, problems, read_table


def test_a_table_has_a_row_for_each_run_seed_and_evaluation(tmp_path):
    words = ["train", "toy", "env=probe_bandit", "seed=3", "system.lr=0.1"]
    plant(tmp_path / "a", rising(0.4, 0.8), absolute=[0.5, 0.9], words=words, seed=3)
    table = jmarl.results.load(str(tmp_path / "**"))
    assert tuple(table.columns[: len(FIXED)]) == FIXED
    assert len(table) == 2 * (5 + 1)
    assert set(table["seed"]) == {3, 4} and set(table["seeds"]) == {2}
    assert set(table["overrides"]) == {"system.lr=0.1"}
    assert set(table["env"]) == {"probe_bandit"} and set(table["system"]) == {"toy"}
    assert set(table["versions"]) == {"jmarl 0.1.0, jax 0.10.2"}
    second = table[table["seed"] == 4]
    evaluations = second[second["kind"] == "eval"]
    assert evaluations["greedy/won"].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert evaluations["env_steps"].tolist() == [STEPS * i + 1 for i in range(5)]
    assert evaluations["wall_time_s"].tolist() == [60.0 * i for i in range(5)]
    (final,) = second[second["kind"] == "absolute"].to_dict("records")
    assert final["greedy/won"] == 0.9 and final["greedy/return"] == 9.0
    assert final["episodes"] == 2 * evaluations["episodes"].iloc[0] == 2 * EPISODES


def test_folders_globs_and_repeated_names_give_the_same_runs(tmp_path):
    plant(tmp_path / "x" / "a", rising(0.4))
    plant(tmp_path / "x" / "b", rising(0.5), seed=5)
    top = str(tmp_path)
    for patterns in (top, f"{top}/**", f"{top}/x/*", [f"{top}/x/a", f"{top}/x/*", top]):
        assert len(jmarl.results.load(patterns)["run"].unique()) == 2


def test_runs_that_are_not_finished_are_in_the_table_and_named(tmp_path):
    plant(tmp_path / "good", rising(0.4))
    plant(tmp_path / "killed", rising(0.4), state="running", seed=5)
    (tmp_path / "killed" / ".lock").touch()
    failed = plant(tmp_path / "failed", rising(0.4), state="failed", seed=6)
    (failed / "metrics.jsonl").unlink()
    damaged = plant(tmp_path / "damaged", rising(0.4), seed=7)
    (damaged / "config.yaml").write_text("{")
    with pytest.warns(UserWarning, match="3 of 4 runs are unfinished, damaged"):
        table = jmarl.results.load(str(tmp_path))
    states = table.groupby("run")["state"].first()
    assert states.tolist() == ["damaged", "failed", "finished", "killed"]
    assert set(table[table["state"] == "failed"]["kind"]) == {"none"}
    lines = problems(table)
    assert len(lines) == 3 and not any("good" in line for line in lines)
    assert any("killed (" in line and "resume with" in line for line in lines)


def test_an_unfinished_row_of_a_metrics_file_does_not_matter(tmp_path):
    folder = plant(tmp_path / "a", rising(0.4))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ev')
    assert len(jmarl.results.load(str(folder))) == 6


def test_the_finished_one_of_equal_runs_counts_and_the_others_are_named(tmp_path):
    plant(tmp_path / "a", rising(0.4, 0.5), state="failed")
    plant(tmp_path / "b", rising(0.4, 0.5))
    plant(tmp_path / "c", rising(0.4, 0.5), run_dir="elsewhere")
    plant(tmp_path / "lr", rising(0.4, 0.5), lr=0.2)
    plant(tmp_path / "overlap", rising(0.4, 0.5), seed=1)
    table = read_table(str(tmp_path))
    doubles = table[table["duplicate_of"] != ""]
    pairs = {
        (r.rsplit("/")[-1], int(s))
        for r, s in zip(doubles["run"], doubles["seed"], strict=True)
    }
    assert pairs == {("a", 0), ("a", 1), ("c", 0), ("c", 1), ("overlap", 1)}
    assert set(doubles["duplicate_of"]) == {str(tmp_path / "b")}
    assert any("c: seed 0, 1: duplicate of" in line for line in problems(table))


def test_overrides_of_a_sweep_are_those_of_the_run(tmp_path):
    words = ["-m", "system.lr=0.1,0.2", "seed=0,1", "network=a,b", "eval.every=[1,2]"]
    plant(tmp_path / "a", rising(0.4), lr=0.2, words=words)
    (text,) = read_table(str(tmp_path))["overrides"].unique()
    assert text == "system.lr=0.2 network=a,b eval.every=[1,2]"


def test_a_moved_run_gives_the_same_rows(tmp_path):
    plant(tmp_path / "a", rising(0.4))
    before = read_table(str(tmp_path / "a"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    after = read_table(str(tmp_path / "b"))
    assert before.drop(columns="run").equals(after.drop(columns="run"))


def test_records_of_the_learning_benchmark_are_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = jmarl.results.load("results/learning/smax_3m_*.json")
    path = "results/learning/smax_3m_mappo.json"
    record = json.loads(open(path).read())
    own = table[table["run"] == path]
    final = own[own["kind"] == "absolute"]
    assert final["greedy/won"].tolist() == record["absolute"][0]["greedy/won"]
    assert len(own) == 3 * (len(record["evaluations"]) + 1)
    assert set(own["commit"]) == {record["environment"]["commit"]}
    assert set(own["system"]) == {"mappo"}


@pytest.mark.parametrize("pattern", ["nowhere/**", "README.md", "results/scan.json"])
def test_a_glob_without_runs_is_an_error(pattern):
    with pytest.raises(ConfigError, match="matches no runs; name run folders"):
        jmarl.results.load(pattern)
