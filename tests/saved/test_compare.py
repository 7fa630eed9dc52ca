"""``jmarl compare``: groups, statistics, figures, and one-line errors."""

import json
import math

import numpy as np
import pytest
from planted_runs import plant, rising

from jmarl.cli.commands import dispatch
from jmarl.cli.process import exit_code
from jmarl.results.figures import svg_text
from jmarl.results.intervals import seed_interval
from jmarl.saved.comparison.analysis import analyze
from jmarl.saved.comparison.compare_runs import compare_runs
from jmarl.saved.comparison.comparison_figures import comparison_drawings
from jmarl.saved.comparison.selection import BY, GROUP, Options, select


@pytest.fixture
def two(tmp_path):
    """Make runs of two systems with the same three seeds."""
    plant(tmp_path / "a", rising(0.6, 0.7, 0.8), system_name="first")
    plant(tmp_path / "b", rising(0.75, 0.84, 0.96), system_name="second")
    return tmp_path


def record_of(folder, **options):
    return compare_runs({"": [str(folder)]}, Options(**options))


def test_groups_have_the_statistics_of_their_seeds(two):
    record = record_of(two, against="second", margin=0.05)
    first = record["groups"]["first"]
    assert first["scores"] == [[0.6, 0.7, 0.8]]
    mean = first["aggregates"]["mean"]
    assert mean["value"] == pytest.approx(0.7)
    _, low, _ = seed_interval(np.array(first["scores"][0]))
    assert mean["low"] == pytest.approx(low, abs=0.02)
    # Straight lines from zero: the mean over the budget is half of the end.
    assert first["area"]["value"] == pytest.approx(0.35, rel=0.01)
    (difference,) = record["differences"]
    assert difference["value"] == pytest.approx(-0.15)
    assert difference["pairs"] == [3] and difference["verdict"] == "inferior"
    chances = {x["group"]: x["value"] for x in record["improvement"]}
    assert sum(chances.values()) == pytest.approx(1)
    assert chances["second"] == pytest.approx(8 / 9)


def test_seeds_below_the_threshold_are_censored(two, capsys):
    record = record_of(two, threshold=0.75)
    waits = record["groups"]["first"]["waits"]["env_steps"]
    assert waits["reached"] == [False, False, True] and waits["median"] is None
    assert record["groups"]["second"]["waits"]["env_steps"]["median"] == 401
    text = capsys.readouterr().out
    assert "1 of 3" in text and "> 402" in text
    minutes = record["groups"]["second"]["waits"]["wall_time_s"]
    assert minutes["budget"] == [240.0, 240.0, 240.0]


def test_named_groups_keep_equal_runs(two, capsys):
    patterns = {"x": [str(two / "a")], "y": [str(two / "a")]}
    record = compare_runs(patterns, Options())
    assert [g["scores"] for g in record["groups"].values()] == [[[0.6, 0.7, 0.8]]] * 2
    assert record["differences"][0]["value"] == 0
    # Equal scores still have the uncertainty of their episodes.
    assert record["differences"][0]["low"] < -0.03
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("by", [name for name in BY if name != GROUP])
def test_every_column_can_divide_the_runs(two, by, capsys):
    record = record_of(two, by=by)
    together = by in ("overrides", "commit", "versions")
    assert len(record["groups"]) == (1 if together else 2)
    sizes = [sum(group["seeds"].values()) for group in record["groups"].values()]
    assert sum(sizes) == 6 and "left out" not in capsys.readouterr().out


def test_labels_of_figures_leave_out_what_all_groups_share(two):
    long = [f"network.width_of_layer_{i}=1" for i in range(6)]
    plant(two / "c", rising(0.1, 0.2), lr=0.5, words=["a.b=1", "c.d=$_{$", "e=2"])
    plant(two / "d", rising(0.1, 0.2), lr=0.6, words=["a.b=1", *long, "e=2"])
    patterns = {"": [str(two / "c"), str(two / "d")]}
    record = analyze(select(patterns, options := Options(by="overrides")), options)
    drawing = comparison_drawings(record)["sample_efficiency"]
    titles = [axes.get_title() for axes in drawing.figure.axes if axes.get_visible()]
    assert titles[0] == "c.d=$_{$ (2 seeds)"
    assert titles[1].endswith(" …\n(2 seeds)") and titles[1].count("\n") == 3
    assert "a.b" not in "".join(titles)
    assert "Seeds: 2 in each group. All groups have a.b=1 e=2." in drawing.caption
    assert "c.d=$_{$ (2 seeds)" in svg_text(drawing.figure)


def test_runs_that_do_not_count_are_named(two, capsys):
    plant(two / "c", rising(0.1, 0.1), state="failed", system_name="first", seed=7)
    plant(two / "d", rising(0.6, 0.7, 0.8), system_name="first")
    plant(two / "e", rising(0.6, 0.7, points=2)[:1], system_name="first", seed=9)
    (two / "e" / "metrics.jsonl").write_text("")
    record = record_of(two)
    assert record["groups"]["first"]["seeds"] == {"probe_bandit": 3}
    text = capsys.readouterr().out
    assert f"note: left out: {two / 'c'}: failed" in text
    assert (
        f"note: left out: {two / 'd'}: seed 0, 1, 2: duplicate of {two / 'a'}" in text
    )
    assert f"note: left out: {two / 'e'}: without evaluations" in text


def test_pooled_configurations_and_unequal_budgets_are_noted(two, capsys):
    plant(two / "c", rising(0.6, 0.7, points=9), system_name="first", lr=0.3)
    record = record_of(two)
    text = capsys.readouterr().out
    assert "first: pools 2 different configurations on probe_bandit" in text
    assert "400 to 801 environment steps" in text
    # A seed occurs twice, so there are no pairs.
    assert record["differences"][0]["pairs"] is None


def test_without_an_absolute_metric_the_last_evaluation_counts(two):
    folder = plant(two / "c", rising(0.5, 0.5), system_name="third", absolute=[1, 1])
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    record = record_of(two)
    assert record["score"] == "last"
    assert record["groups"]["third"]["scores"] == [[0.5, 0.5]]
    assert any(
        "1 of 3 runs have no absolute metric" in note for note in record["notes"]
    )


@pytest.fixture
def two_envs(two):
    for name, ends in (("first", (0.2, 0.3)), ("second", (0.4, 0.5))):
        env = {"name": "probe_cue"}
        plant(two / f"cue_{name}", rising(*ends), system_name=name, env=env)
    return two


def test_one_of_several_environments_can_be_chosen(two_envs):
    record = record_of(two_envs, env="probe_cue")
    assert record["groups"]["first"]["scores"] == [[0.2, 0.3]]


def test_seeds_are_strata_of_several_environments(two_envs, tmp_path):
    record = record_of(two_envs, across="env", out=str(tmp_path / "out"))
    text = (tmp_path / "out" / "sample_efficiency.svg").read_text()
    assert "first (2-3 seeds x 2 envs)" in text and "share of the steps" in text
    first = record["groups"]["first"]
    assert first["seeds"] == {"probe_bandit": 3, "probe_cue": 2}
    assert first["aggregates"]["mean"]["value"] == pytest.approx((0.7 + 0.25) / 2)
    assert first["waits"] == {}
    assert record["differences"][0]["value"] == pytest.approx((0.15 + 0.2) / 2)


def test_returns_of_several_environments_are_mapped_to_the_unit_interval(two_envs):
    record = record_of(two_envs, across="env", metric="return")
    assert any("mapped to [0, 1]" in note for note in record["notes"])
    scores = record["groups"]["second"]["scores"]
    assert max(scores[0]) == max(scores[1]) == 1.0


def test_returns_of_one_environment_stay_in_their_units(two):
    record = record_of(two, metric="return")
    first = record["groups"]["first"]
    assert first["scores"] == [[6.0, 7.0, 8.0]] and record["threshold"] is None
    assert "optimality gap" not in first["aggregates"]


def test_the_command_writes_the_record_and_legible_figures(two, tmp_path, capsys):
    out = tmp_path / "figures" / "new"
    assert dispatch(["compare", str(two), "metric=won", "by=system", f"out={out}"]) == 0
    names = {"sample_efficiency", "wall_time", "profiles", "improvement"}
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == expected | {"compare.json"}
    record = json.loads((out / "compare.json").read_text())
    assert not any(isinstance(x, float) and math.isnan(x) for x in record["thresholds"])
    text = (out / "sample_efficiency.svg").read_text()
    for label in ("environment steps", "greedy win rate", "first (3 seeds)"):
        assert label in text
    assert "wall time (minutes)" in (out / "wall_time.svg").read_text()
    assert "wrote" in capsys.readouterr().out


def test_many_groups_have_a_panel_each(two, tmp_path):
    for i in range(4):
        plant(two / f"s{i}", rising(0.1 * i, 0.2 * i), system_name=f"s{i}")
    record_of(two, out=str(tmp_path / "out"))
    text = (tmp_path / "out" / "sample_efficiency.svg").read_text()
    assert all(f"s{i} (2 seeds)" in text for i in range(4))


MISTAKES = {
    "no runs named": ([], "compare: names no runs"),
    "empty glob": (["{root}/nothing/*"], "matches no runs; name run folders"),
    "unknown key": (
        ["{root}", "metrc=won"],
        "metrc is no key of jmarl compare; did you",
    ),
    "empty group": (["x={root}/nothing"], "matches no runs, and x is no key"),
    "metric": (["{root}", "metric=win"], "unknown metric; did you mean won?"),
    "no metric": (["{root}", "metric=zzz"], "unknown metric; known: won, return"),
    "mode": (["{root}", "mode=best"], "must be one of greedy, sampled"),
    "by": (["{root}", "by=systm"], "unknown column; did you mean system?"),
    "group without names": (["{root}", "by=group"], "by=group: needs named groups"),
    "mixed": (["{root}/a", "x={root}/b"], "by=group: needs named groups"),
    "env": (["{root}", "env=probe_bandits"], "did you mean probe_bandit?"),
    "across": (["{root}", "across=system"], "must be env"),
    "against": (["{root}", "against=frist"], "no such group; did you mean first?"),
    "margin": (["{root}", "margin=-1"], "must be greater than 0"),
    "resamples": (["{root}", "resamples=1"], "must lie in [100, 1000000]"),
    "file": (["{root}", "out={root}/a/config.yaml"], "cannot be written"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_exit_with_two(two, words, message, capsys):
    filled = [word.format(root=two) for word in words]
    assert exit_code(lambda: dispatch(["compare", *filled])) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


def test_different_environments_need_a_choice(two_envs, capsys):
    assert exit_code(lambda: dispatch(["compare", str(two_envs)])) == 2
    error = capsys.readouterr().err
    assert "2 environments (probe_bandit, probe_cue)" in error and "across=env" in error
    assert error.count("\n") == 1


def test_one_seed_is_not_compared(two, capsys):
    plant(two / "single", rising(0.5), system_name="single")
    assert exit_code(lambda: dispatch(["compare", str(two)])) == 2
    assert "single: 1 seed on probe_bandit; a comparison needs at least 2" in (
        capsys.readouterr().err
    )


def test_only_unfinished_runs_are_an_error_that_names_them(tmp_path, capsys):
    plant(tmp_path / "a", rising(0.1, 0.1), state="failed")
    assert exit_code(lambda: dispatch(["compare", str(tmp_path)])) == 2
    error = capsys.readouterr().err
    assert "no finished run to compare (left out:" in error and error.count("\n") == 1
