"""Learning per budget: area under the curve, and the budget until a threshold is reached.

A budget is environment steps or seconds. A run that never reaches the threshold is *censored*: its
time is only known to exceed its budget. Estimates follow Kaplan and Meier (1958).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jmarl.results.statistics.bootstrap import Interval, student_interval


MARGIN = 1e-9
"""Tolerance of a survival of one half, which is a product of fractions."""


SLACK = 0.02
"""Relative difference of budgets that count as equal where runs are censored."""


class Curve(NamedTuple):
    """Evaluations of one run of one seed."""

    budget: Float[np.ndarray, " K"]
    """Environment steps or seconds at each evaluation, increasing."""
    values: Float[np.ndarray, " K"]


class Waits(NamedTuple):
    """Budgets until several runs reached a threshold."""

    budget: Float[np.ndarray, " S"]
    """Budget of the first evaluation at the threshold, or of the last one of a censored run."""
    reached: Bool[np.ndarray, " S"]


def common_budget(curves: Sequence[Curve]) -> float:
    """Return the largest budget that all runs have spent."""
    return float(min(curve.budget[-1] for curve in curves))


def area_under_curve(
    curve: Curve,
    limit: float,
) -> float:
    """Return the area under a learning curve, divided by its budget.

    It is the mean of the metric from the first evaluation to the limit, with straight lines
    between evaluations.

    Args:
        curve: Evaluations of a run.
        limit: End of the budget, at most that of the last evaluation.

    Raises:
        ValueError: If the limit lies outside of the evaluations.
    """
    start, end = curve.budget[0], curve.budget[-1]
    if not start < limit <= end:
        raise ValueError(f"limit {limit:g} is not in ({start:g}, {end:g}]")
    inside = curve.budget < limit
    last = np.interp(limit, curve.budget, curve.values)
    budget = np.append(curve.budget[inside], limit)
    values = np.append(curve.values[inside], last)
    return float(np.trapezoid(values, budget) / (limit - start))


def waits(curves: Sequence[Curve], threshold: float) -> Waits:
    """Return the budgets until runs reached a threshold, to the next evaluation.

    Seeds with equal training differ a little in environment steps. A censored run whose budget is
    that of the longest run up to ``SLACK`` therefore counts as censored at the latter. Otherwise
    it would not be at risk when another one reaches the threshold at its own last evaluation.

    Args:
        curves: Evaluations of each run.
        threshold: Value of the metric to reach.
    """
    end = max(curve.budget[-1] for curve in curves)
    budget, reached = [], []
    for curve in curves:
        hits = np.flatnonzero(curve.values >= threshold)
        last = curve.budget[-1]
        censored = end if last >= (1 - SLACK) * end else last
        budget.append(curve.budget[hits[0]] if len(hits) else censored)
        reached.append(len(hits) > 0)
    return Waits(np.array(budget, float), np.array(reached))


def survival(found: Waits) -> tuple[Float[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Estimate the share of runs that have not reached the threshold (Kaplan and Meier 1958).

    Returns:
        Budgets at which runs reached it, ``[E]``, and the share right after each, ``[E]``.
    """
    events = np.unique(found.budget[found.reached])
    at_risk = (found.budget >= events[:, None]).sum(-1)
    at_event = (found.budget == events[:, None]) & found.reached
    return events, np.cumprod(1 - at_event.sum(-1) / at_risk)


def median_wait(found: Waits) -> float:
    """Return the budget until half of the runs reach the threshold, infinity if fewer do."""
    events, share = survival(found)
    done = np.flatnonzero(share <= 0.5 + MARGIN)
    return float(events[done[0]]) if len(done) else math.inf


def restricted_mean_wait(
    found: Waits,
    limit: float,
) -> float:
    """Return the mean budget until the threshold, counted up to a limit (Irwin 1949).

    A run that does not reach the threshold counts with the whole limit. The result is therefore a
    lower bound of the mean budget, equally for all systems with the same limit.

    Args:
        found: Budgets of the runs.
        limit: Largest budget that counts, at most that of every censored run.

    Raises:
        ValueError: If a run was censored before the limit.
    """
    censored = found.budget[~found.reached]
    if len(censored) and censored.min() < limit:
        raise ValueError(f"a run was censored at {censored.min():g}, before {limit:g}")
    return float(np.minimum(found.budget, limit).mean())


def restricted_mean_interval(
    found: Waits,
    limit: float,
    seed: int = 0,
) -> Interval:
    """Return the restricted mean with its 95 % interval, clipped to the budget.

    Args:
        found: Budgets of the runs.
        limit: As in ``restricted_mean_wait``.
        seed: Seed of the bootstrap.
    """
    restricted_mean_wait(found, limit)
    counted = np.minimum(found.budget, limit)
    value, low, high = student_interval(
        lambda x: x[0].mean(-1),
        [counted],
        seed=seed,
    )
    return Interval(
        float(value),
        max(0.0, float(low)),
        min(limit, float(high)),
    )
