"""Reports: planted curves, shifts and trends are found, and missing cells are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from study_folders import read_record, write_cell, write_study

from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.results.logistic import WinRates, effects, fit_counts, fit_curve
from jmarl.results.machine import versions
from jmarl.studies.reports import check_report, report_study
from jmarl.studies.results import stability
from jmarl.studies.study_file import Part, read_study


SCALES = np.array([1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0])
PLANTED = {
    ("clash", "without"): 1.4,
    ("clash", "with"): 1.5,
    ("unified", "without"): 1.7,
    ("unified", "with"): 2.2,
}
"""Shift of unified: 0.5; of with: 0.3; interaction: 0.4."""
SLOPE = 6.0


def rate(x, d50):
    return 1 / (1 + np.exp(SLOPE * (x - d50)))


def simulate(d50, seeds=5, episodes=200, seed=0):
    """Return simulated win rates; the D50 of a seed has a deviation of 0.05."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(0, 0.05, (len(SCALES), seeds))
    wins = rng.binomial(
        episodes,
        rate(SCALES[:, None] - shifts, d50),
    )
    return WinRates(SCALES, tuple(wins / episodes), episodes)


def test_exact_counts_give_the_planted_curve():
    wins = 1e6 * rate(SCALES, 1.8)
    d50, slope = fit_counts(SCALES, wins, 1e6 - wins)
    np.testing.assert_allclose(
        [d50, slope],
        [1.8, SLOPE],
        rtol=1e-3,
    )


def test_separated_counts_have_a_d50_between_the_two_scales():
    wins = np.where(SCALES < 1.6, 100.0, 0.0)
    d50, slope = fit_counts(SCALES, wins, 100 - wins)
    assert 1.5 < d50 < 1.75 and np.isfinite(slope)


def test_simulated_counts_give_the_planted_shifts_and_interaction():
    curves = {
        arm: fit_curve(simulate(d50, seed=i), resamples=200, seed=i)
        for i, (arm, d50) in enumerate(PLANTED.items())
    }
    for arm, d50 in PLANTED.items():
        low, high = np.percentile(curves[arm].samples, (2.5, 97.5))
        assert low - 0.03 < d50 < high + 0.03 and high - low < 0.2
    found = effects(curves, ("clash", "unified"), ("without", "with"))
    for name, planted in (
        ("first", 0.5),
        ("second", 0.3),
        ("interaction", 0.4),
    ):
        effect = found[name]
        assert effect["low"] < planted < effect["high"], name
        assert effect["low"] > 0 and effect["note"] == ""
        assert abs(effect["mean"] - planted) < 0.1


@pytest.mark.parametrize(
    ("d50", "note"),
    [(9.0, "above 50 % at every difficulty"), (0.1, "below 50 % at every difficulty")],
)
def test_an_arm_that_does_not_cross_half_has_no_d50(d50, note):
    curve = fit_curve(simulate(d50), resamples=10)
    assert np.isnan(curve.d50) and curve.note == note
    other = fit_curve(simulate(2.0), resamples=10)
    curves = dict.fromkeys(PLANTED, other) | {("clash", "with"): curve}
    found = effects(curves, ("clash", "unified"), ("without", "with"))
    assert found["first"]["mean"] is None
    assert found["first"]["note"] == "undefined: no D50 of clash-with"


def test_win_rates_that_rise_have_no_d50():
    found = WinRates(
        SCALES,
        tuple(1 - x for x in simulate(2.0).rates),
        200,
    )
    assert fit_curve(found, 10).note == "win rate does not fall"


def test_one_seed_has_a_d50_without_an_interval():
    curve = fit_curve(simulate(2.0, seeds=1))
    assert abs(curve.d50 - 2) < 0.1 and curve.note == "one seed"
    found = effects(
        dict.fromkeys(PLANTED, curve), ("clash", "unified"), ("without", "with")
    )
    assert found["interaction"] == {
        "mean": 0,
        "low": None,
        "high": None,
        "note": "one seed",
    }


def test_the_report_on_unified_actions_has_the_planted_shifts(tmp_path, capsys):
    rng = np.random.default_rng(0)

    def won(cell):
        labels = cell.labels
        d50 = PLANTED[labels["layout"], labels["cgi"]]
        p = rate(
            float(labels["scale"]) - rng.normal(0, 0.05, 3),
            d50,
        )
        return (rng.binomial(200, p) / 200).tolist()

    study = read_study("uas_cgi")
    write_study(study, tmp_path, won)
    (tmp_path / "unified-with-1.0" / "status.json").unlink()
    assert dispatch(["study", "report", "uas_cgi", f"out={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "1 cells are missing: unified-with-1.0" in text
    assert "| arm " in text and "interaction" in text
    record = read_record(tmp_path)
    now = versions()
    assert record["commits"] == [now["commit"]]
    assert record["environment"]["device"] == now["device_kind"]
    assert abs(record["effects"]["layout"]["mean"] - 0.5) < 0.1
    assert abs(record["effects"]["cgi"]["mean"] - 0.3) < 0.1
    assert abs(record["effects"]["interaction"]["mean"] - 0.4) < 0.2
    assert record["arms"]["clash-with"]["episodes"] == 200
    assert (tmp_path / "report.png").stat().st_size > 0


def test_a_comparison_has_the_planted_slopes_and_differences(tmp_path):
    study = read_study("cgi_groups")
    noise = np.array([-0.01, 0.0, 0.01])
    arms = ["none", "weight_0.1", "weight_1", "unconditioned", "open_target"]

    def won(cell):
        offset = 0.1 * arms.index(cell.labels["arm"])
        return (0.1 * float(cell.labels["groups"]) + offset + noise).tolist()

    def measured(cell):
        if cell.labels["arm"] == "none":
            return {}
        return {
            "gradient_cosine": [0.5, float("nan"), 0.3],
            "cgi_error/0-1": [0.2] * 3,
        }

    write_study(study, tmp_path, won, measured)
    text = report_study(study, tmp_path)
    record = read_record(tmp_path)
    slopes = {(x["arm"], x["metric"]): x["slope"] for x in record["trends"]}
    np.testing.assert_allclose(slopes["weight_1", "win_rate"]["mean"], 0.1)
    assert ("none", "gradient_cosine") not in slopes
    tests = {(x["cell"], x["metric"]): x for x in record["tests"]}
    np.testing.assert_allclose(tests["3-weight_1", "win_rate"]["difference"], 0.2)
    assert tests["3-weight_1", "win_rate"]["p_holm"] < 0.05
    assert not any(cell.endswith("-none") for cell, _ in tests)
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert cells["2-weight_1"]["metrics"]["gradient_cosine"]["mean"] == 0.4
    assert cells["2-weight_1"]["seeds"] == [3, 4, 5]
    assert "0.400 [0.000, 1.000]" not in text and "2 of 3 seeds" in str(record)
    assert "| 2-weight_1" in text and "cgi_error/0-1" in text


@pytest.mark.parametrize("name", ["roles", "team_changes"])
def test_a_report_with_options_as_labels_has_no_slopes(name, tmp_path):
    study = read_study(name)
    metrics = {"diversity": [0.1, 0.2], "retention/squad": [0.5, None]}
    write_study(study, tmp_path, lambda cell: [0.2, 0.4], lambda cell: metrics)
    text = report_study(study, tmp_path)
    record = read_record(tmp_path)
    assert record["trends"] == [] and record["missing"] == []
    shown = "diversity" if name == "roles" else "retention/squad"
    assert shown in record["metrics"] and shown in text
    assert (tmp_path / "report.png").stat().st_size > 0


def test_stability_is_the_deviation_over_the_last_quarter():
    rates = np.random.default_rng(0).random((16, 2))
    rows = [{"greedy/won": list(row)} for row in rates]
    np.testing.assert_allclose(
        stability(rows),
        rates[-4:].std(0, ddof=1),
    )
    assert stability(rows[:1]) == [None, None]


def test_a_report_without_a_finished_cell_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="holds no finished cell of the study roles"):
        dispatch(["study", "report", "roles", f"out={tmp_path}"])


def test_results_of_another_measure_count_as_unmeasured(tmp_path):
    study = read_study("roles")
    cell = study.cells()[0]
    write_cell(tmp_path / cell.name, [0.5, 0.5])
    report_study(study, tmp_path)
    assert read_record(tmp_path)["unmeasured"] == [cell.name]
    assert len(read_record(tmp_path)["missing"]) == 8


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part("compar"), "report.name='compar': unknown report; did you mean compare"),
        (
            Part("compare", {"metrics": ["x"], "across": "rol"}),
            "report.options.across='rol': no such factor; did you mean role",
        ),
        (
            Part(
                "compare",
                {"metrics": [], "across": "role", "baseline": {"arm": "hapo"}},
            ),
            "report.options.baseline.arm='hapo': no such label; did you mean happo",
        ),
        (
            Part(
                "difficulty",
                {"dose": "role", "components": {"arm": ["a", "b"]}},
            ),
            "report.options.components=.*two factors",
        ),
    ],
)
def test_a_wrong_report_is_an_error(part, message):
    study = dataclasses.replace(read_study("roles"), report=part)
    with pytest.raises(ConfigError, match=message):
        check_report(study)
