"""Verdicts on the claims of a study."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jmarl.config import ConfigError, build
from jmarl.results.statistics.bootstrap import Interval
from jmarl.studies.claims import check_claims, claims_table, judge_claims, verdict
from jmarl.studies.study_file import Claim, Part, Study
from tests.studies.study_folders import read_folders, write_study


FACTORS = {
    "map": {"easy": ["env=smax_3m"], "hard": ["env=smax_5v5"]},
    "arm": {"mam": {"system": "mam_ppo"}, "mat": {"system": "mat_ppo"}},
}
CLAIM = {
    "text": "MAM is better than MAT.",
    "first": {"arm": "mam"},
    "second": {"arm": "mat"},
    "smallest_effect": 0.05,
}
RATES = {
    "easy-mam": [0.90, 0.92, 0.94],
    "easy-mat": [0.80, 0.83, 0.82],
    "hard-mam": [0.50, 0.53, 0.52],
    "hard-mat": [0.40, 0.42, 0.44],
}


def study_with(**changes):
    tree = {
        "title": "arms",
        "question": "Which arm?",
        "factors": FACTORS,
        "report": {
            "name": "compare",
            "options": {"across": "arm", "metrics": ["return"]},
        },
        "claims": [CLAIM | changes],
    }
    return build(Study, tree)


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        ("superior", 0.01, 0.02, "supported"),
        ("superior", -0.01, 0.04, "not supported"),
        ("superior", -0.01, 0.06, "undecided"),
        ("superior", -0.20, -0.10, "not supported"),
        ("not_inferior", -0.04, 0.10, "supported"),
        ("not_inferior", -0.06, 0.10, "undecided"),
        ("not_inferior", -0.20, -0.06, "not supported"),
        ("not_inferior", -math.inf, math.inf, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_interval(rule, low, high, expected):
    claim = build(Claim, CLAIM | {"rule": rule})
    assert verdict(claim, Interval((low + high) / 2, low, high)) == expected


def judged(folder, **changes):
    study = study_with(**changes)
    write_study(study, folder, lambda cell: RATES[cell.name])
    (claim,) = judge_claims(read_folders(study, folder))
    return claim


def test_differences_are_paired_by_seed_and_averaged_over_maps(tmp_path):
    claim = judged(tmp_path)
    mean, low, high = claim["difference"]
    assert mean == pytest.approx((0.31 + 0.29) / 3 / 2)
    assert 0 < low < mean < high
    assert claim["seeds"] == [3, 3] and claim["verdict"] == "supported"
    assert "| supported | +0.100" in claims_table({"claims": [claim]})


def test_the_other_side_has_the_opposite_difference(tmp_path):
    ours = judged(tmp_path / "a")
    sides = {"first": CLAIM["second"], "second": CLAIM["first"]}
    theirs = judged(tmp_path / "b", **sides)
    mirrored = [-x for x in (theirs["difference"][i] for i in (0, 2, 1))]
    assert ours["difference"] == pytest.approx(mirrored)
    assert theirs["verdict"] == "not supported"


def test_a_missing_cell_leaves_a_claim_unfinished(tmp_path):
    study = study_with()
    write_study(study, tmp_path, lambda cell: RATES[cell.name])
    (tmp_path / "hard-mat" / "status.json").unlink()
    (claim,) = judge_claims(read_folders(study, tmp_path))
    assert claim["verdict"] == "unfinished"
    assert claim["reason"] == "1 of 2 pairs of cells are finished"
    assert claim["difference"] == [None] * 3 and claim["seeds"] == [3]


def test_a_cell_without_its_measure_leaves_a_claim_unfinished(tmp_path):
    study = study_with(metric="win_rate/smax_5v5")
    study = dataclasses.replace(study, measure=Part("zero_shot", {"envs": ["x"]}))
    rates = {"win_rate/smax_5v5": [0.5, 0.5, 0.5]}
    write_study(study, tmp_path, lambda cell: RATES[cell.name], lambda cell: rates)
    assert judge_claims(read_folders(study, tmp_path))[0]["verdict"] == "undecided"
    (tmp_path / "hard-mat" / "measures.json").unlink()
    (claim,) = judge_claims(read_folders(study, tmp_path))
    assert claim["verdict"] == "unfinished"


def test_not_being_inferior_to_a_loser_is_undecided(tmp_path):
    """Both sides win 2 %, so a side that never wins would not be worse by 5 % either."""
    study = study_with(rule="not_inferior")
    write_study(study, tmp_path, lambda cell: [0.02, 0.02, 0.02])
    (claim,) = judge_claims(read_folders(study, tmp_path))
    assert claim["difference"][1] > -claim["smallest_effect"]
    assert claim["verdict"] == "undecided"
    table = claims_table({"claims": [claim]})
    assert "| undecided: the second side scores 0.020, so a win rate of 0" in table


def test_a_lower_win_rate_elsewhere_refutes_a_claim_in_spite_of_a_loser(tmp_path):
    """Nobody wins the hard map, but the first side is far worse on the easy one."""
    study = study_with(rule="not_inferior")
    rates = {"easy-mam": [0.1, 0.1, 0.1], "easy-mat": [0.9, 0.9, 0.9]}
    write_study(study, tmp_path, lambda cell: rates.get(cell.name, [0.0, 0.0, 0.0]))
    (claim,) = judge_claims(read_folders(study, tmp_path))
    assert claim["verdict"] == "not supported" and claim["reason"] == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": {"arm": "mem"}}, "claims.0.first={'arm': 'mem'}: no cell"),
        ({"second": {"arm": "mem"}}, "claims.0.second=.* otherwise like easy-mam"),
        ({"second": {}}, "claims.0.second={}: no cell"),
    ],
)
def test_a_claim_about_no_cells_is_an_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_claims(study_with(**changes))


@pytest.mark.parametrize("changes", [{"smallest_effect": 0}, {"rule": "equal"}])
def test_a_wrong_claim_is_an_error(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        study_with(**changes)


def test_a_measured_win_rate_varies_with_its_number_of_episodes(tmp_path):
    study = study_with(metric="win_rate/smax_5v5", rule="not_inferior")
    measure = Part("zero_shot", {"envs": ["smax_5v5"], "episodes": 16})
    study = dataclasses.replace(study, measure=measure)
    rates = {"win_rate/smax_5v5": [0.5, 0.5, 0.5]}
    write_study(study, tmp_path, lambda cell: RATES[cell.name], lambda cell: rates)
    (claim,) = judge_claims(read_folders(study, tmp_path))
    mean, low, high = claim["difference"]
    assert mean == 0 and high == -low > 0.05
    assert claim["verdict"] == "undecided"
