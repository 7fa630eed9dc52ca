"""Claims of a study, stated before its runs, and their verdicts.

This module does not import JAX.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jmarl.config import check
from jmarl.results.intervals import win_rate_variance
from jmarl.results.statistics.bootstrap import Interval
from jmarl.results.statistics.pairs import Pair, paired, paired_difference
from jmarl.results.tables import markdown
from jmarl.studies.results import MEASURE_EPISODES, CellResult, Results
from jmarl.studies.study_file import Cell, Claim, Study


SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
UNFINISHED = "unfinished"
"""Verdict on a claim that compares cells without a result."""
UNKNOWN = Interval(math.nan, -math.inf, math.inf)
"""Difference without data."""
WIN_RATE = "win_rate"


def check_claims(study: Study) -> None:
    """Raise ``ConfigError`` if a claim compares no cells, or unequal numbers of them."""
    for number, claim in enumerate(study.claims):
        key = f"claims.{number}"
        pairs = list(_pairs(study.cells(), claim))
        rule = "no cell has these options; see the factors of the study"
        check(len(pairs) > 0, f"{key}.first", claim.first, rule)
        for first, second in pairs:
            rule = f"no cell has these options and is otherwise like {first.name}"
            check(second not in (None, first), f"{key}.second", claim.second, rule)


def _pairs(
    cells: list[Cell],
    claim: Claim,
) -> Iterator[tuple[Cell, Cell | None]]:
    """Yield each cell of the first side with the one that differs in the claim's factors alone."""
    for cell in cells:
        if _has(cell, _texts(claim.first)):
            labels = {**cell.labels, **_texts(claim.second)}
            counterparts = (other for other in cells if other.labels == labels)
            yield cell, next(counterparts, None)


def _has(cell: Cell, labels: dict[str, str]) -> bool:
    return labels.items() <= cell.labels.items()


def _texts(labels: dict[str, Any]) -> dict[str, str]:
    """Return labels as texts, because YAML reads some as numbers."""
    return {factor: str(label) for factor, label in labels.items()}


def judge_claims(results: Results) -> list[dict[str, Any]]:
    """Return the verdicts on all claims of a study."""
    return [_judge(results, claim) for claim in results.study.claims]


def _judge(
    results: Results,
    claim: Claim,
) -> dict[str, Any]:
    pairs = list(_pairs(results.study.cells(), claim))
    compared = list(_finished_pairs(results, claim))
    usable = [each for each in compared if len(each.scores[0]) > 0]
    if len(compared) < len(pairs):
        difference, judged = UNKNOWN, UNFINISHED
        reason = f"{len(compared)} of {len(pairs)} pairs of cells are finished"
    else:
        difference = _difference(usable)
        judged = verdict(claim, difference)
        if reason := _why_undecided(claim, usable, len(pairs), judged):
            judged = UNDECIDED
    return {
        "text": claim.text,
        "metric": claim.metric,
        "rule": claim.rule,
        "smallest_effect": claim.smallest_effect,
        "difference": list(map(_or_none, difference)),
        "seeds": [len(each.scores[0]) for each in usable],
        "verdict": judged,
        "reason": reason,
    }


def _difference(compared: Sequence[_Compared]) -> Interval:
    if not compared:
        return UNKNOWN
    variance = max(each.least_variance for each in compared)
    return paired_difference([each.scores for each in compared], variance)


def _finished_pairs(results: Results, claim: Claim) -> Iterator[_Compared]:
    """Yield the scores of each pair of cells that both have results."""
    found = {result.cell.name: result for result in results.finished}
    for cell in results.unmeasured:
        if claim.metric not in found[cell.name].metrics:
            del found[cell.name]
    for first, second in _pairs(results.study.cells(), claim):
        if second and first.name in found and second.name in found:
            sides = found[first.name], found[second.name]
            yield _compare(results.study, *sides, claim)


def _why_undecided(
    claim: Claim, compared: Sequence[_Compared], wanted: int, judged: str
) -> str:
    """Return why an interval does not decide a claim; empty if it does, or by its own width."""
    if len(compared) < wanted:
        return f"{len(compared)} of {wanted} pairs of cells have defined scores"
    lowest = min(float(each.scores[1].mean()) for each in compared)
    is_share = claim.metric.partition("/")[0] == WIN_RATE
    is_lax = claim.rule == "not_inferior" and judged != NOT_SUPPORTED
    if not is_lax or not is_share or lowest >= claim.smallest_effect:
        return ""
    return f"the second side scores {lowest:.3f}, so a win rate of 0 would be enough"


class _Compared(NamedTuple):
    scores: Pair
    least_variance: float
    """Variance of a difference due to the finite numbers of episodes."""


def _compare(
    study: Study, first: CellResult, second: CellResult, claim: Claim
) -> _Compared:
    metric = claim.metric
    scores = paired(_by_seed(first, metric), _by_seed(second, metric))
    name, _, place = metric.partition("/")
    if name != WIN_RATE or len(scores[0]) == 0:
        return _Compared(scores, 0.0)
    measured = study.measure.options if study.measure and place else {}
    variances = [
        win_rate_variance(
            float(values.mean()),
            len(values),
            measured.get("episodes", MEASURE_EPISODES) if place else side.episodes,
        )
        for values, side in zip(scores, (first, second), strict=True)
    ]
    return _Compared(scores, sum(variances))


def _by_seed(result: CellResult, metric: str) -> dict[int, float]:
    """Return the defined values of a metric by seed."""
    values = result.metrics.get(metric, [None] * len(result.seeds))
    pairs = zip(result.seeds, values, strict=True)
    return {seed: value for seed, value in pairs if value is not None}


def verdict(
    claim: Claim,
    difference: Interval,
) -> str:
    """Return the verdict on a claim, by the 95 % interval of the difference.

    ``superior`` is supported if the interval lies above 0, and not supported if it lies below
    the smallest effect. ``not_inferior`` is supported if it lies above minus the smallest effect,
    and not supported if it lies below that.

    Args:
        claim: The claim.
        difference: Mean of the first side minus that of the second, with its interval.

    Returns:
        ``supported``, ``not supported`` or ``undecided``.
    """
    effect = claim.smallest_effect
    is_superior = claim.rule == "superior"
    if difference.low > (0.0 if is_superior else -effect):
        return SUPPORTED
    if difference.high < (effect if is_superior else -effect):
        return NOT_SUPPORTED
    return UNDECIDED


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def claims_table(record: dict[str, Any]) -> str:
    """Return the verdicts in the record of a study as Markdown."""
    header = ("claim", "verdict", "difference", "95 % interval", "rule", "seeds")
    rows = [
        (
            each["text"],
            ": ".join(filter(None, (each["verdict"], each.get("reason")))),
            *_interval_texts(each["difference"]),
            f"{each['rule']}, smallest effect {each['smallest_effect']:g}",
            ", ".join(map(str, each["seeds"])) or "-",
        )
        for each in record["claims"]
    ]
    return markdown(header, rows)


def _interval_texts(difference: list[float | None]) -> tuple[str, str]:
    mean, low, high = difference
    if mean is None or low is None or high is None:
        return "-", "-"
    return f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"
