"""Logistic curves of win rate over difficulty, and the effects of two components on them.

    P(win | x) = 1 / (1 + exp(slope (x - d50)))

The curve is fitted to counts of wins by maximum likelihood. Half a win and half a loss are added at
each difficulty, so that the fit also exists if the counts separate. Intervals are percentiles of
bootstrap samples: at each difficulty, seeds are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


LEVEL = (2.5, 97.5)
"""Percentiles of an interval of 95 %."""
NO_EFFECT = dict.fromkeys(("mean", "low", "high"))


class WinRates(NamedTuple):
    """Win rates of an arm at several difficulties."""

    x: Float[np.ndarray, " D"]
    """Difficulties."""
    rates: tuple[Float[np.ndarray, " S"], ...]
    """Win rate of each seed at each difficulty. The number of seeds may vary."""
    episodes: int
    """Episodes of each seed at each difficulty."""


class Curve(NamedTuple):
    """Fitted curve of an arm."""

    d50: float
    """Difficulty of a win rate of 50 %, NaN if the win rates do not cross it."""
    slope: float
    note: str
    """Reason why there is no D50."""
    samples: Float[np.ndarray, " R"]
    """D50 of bootstrap samples, at most at the ends of the difficulties; empty for one seed."""


def fit_counts(
    x: Float[np.ndarray, " D"],
    wins: Float[np.ndarray, " D"],
    losses: Float[np.ndarray, " D"],
) -> tuple[float, float]:
    """Fit a logistic curve to counts by maximum likelihood.

    Args:
        x: Difficulties, at least two different ones.
        wins: Number of wins at each difficulty.
        losses: Number of losses at each difficulty.

    Returns:
        D50 and slope. A curve that does not fall has a slope of at most 0.
    """
    from scipy.optimize import minimize  # slow to import

    center, scale = x.mean(), x.std()
    z = (x - center) / scale
    won, lost = wins + 0.5, losses + 0.5
    total = (won + lost).sum()

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logit = w[0] - w[1] * z
        value = won @ np.logaddexp(0, -logit) + lost @ np.logaddexp(0, logit)
        error = (won + lost) / (1 + np.exp(-np.clip(logit, -500, 500))) - won
        return value / total, np.array([error.sum(), -(error @ z)]) / total

    a, b = minimize(loss, np.zeros(2), jac=True, method="BFGS", tol=1e-9).x
    return center + scale * a / b if b else np.nan, b / scale


def fit_curve(
    found: WinRates,
    resamples: int = 1000,
    seed: int = 0,
) -> Curve:
    """Fit the curve of an arm, with bootstrap samples over its seeds.

    Args:
        found: Win rates of the arm.
        resamples: Number of bootstrap samples R.
        seed: Seed of the samples.

    Returns:
        The curve. Without win rates on both sides of 50 % it has no D50.
    """
    means = np.array([rates.mean() for rates in found.rates])
    d50, slope = _fit(found, means)
    if note := _why_not(found, means, (d50, slope)):
        return Curve(np.nan, slope, note, np.empty(0))
    if min(map(len, found.rates)) == 1:
        return Curve(d50, slope, "one seed", np.empty(0))
    rng = np.random.default_rng(seed)
    samples = [_resample(found, rng) for _ in range(resamples)]
    fits = np.array([_fit(found, sample) for sample in samples])
    bounded = np.clip(
        fits[:, 0],
        found.x.min(),
        found.x.max(),
    )
    return Curve(
        d50,
        slope,
        "",
        np.where(fits[:, 1] > 0, bounded, np.nan),
    )


def _fit(
    found: WinRates,
    means: Float[np.ndarray, " D"],
) -> tuple[float, float]:
    number = found.episodes * np.array([len(rates) for rates in found.rates])
    return fit_counts(found.x, means * number, (1 - means) * number)


def _resample(
    found: WinRates,
    rng: np.random.Generator,
) -> Float[np.ndarray, " D"]:
    return np.array([rng.choice(rates, len(rates)).mean() for rates in found.rates])


def _why_not(
    found: WinRates,
    means: Float[np.ndarray, " D"],
    fit: tuple[float, float],
) -> str:
    """Return why win rates have no D50; empty if they have one."""
    if means.min() > 0.5:
        return "above 50 % at every difficulty"
    if means.max() < 0.5:
        return "below 50 % at every difficulty"
    d50, slope = fit
    if not slope > 0:
        return "win rate does not fall"
    inside = found.x.min() <= d50 <= found.x.max()
    return "" if inside else "curve crosses 50 % outside of the difficulties"


def interval(
    value: float,
    samples: Float[np.ndarray, " R"],
) -> dict[str, Any]:
    """Return a value with its bootstrap interval, None without samples."""
    finite = samples[np.isfinite(samples)]
    bounds = np.percentile(finite, LEVEL).tolist() if len(finite) else (None, None)
    return {
        "mean": float(value),
        "low": bounds[0],
        "high": bounds[1],
    }


def effects(
    curves: Mapping[tuple[str, str], Curve],
    first: tuple[str, str],
    second: tuple[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the shifts of D50 by two components, and their interaction.

    Args:
        curves: Curve of each combination ``(option of the first component, of the second)``.
        first: Options without and with the first component.
        second: Options without and with the second component.

    Returns:
        ``first``: mean shift by the first component over both options of the second; ``second``:
        the reverse; ``interaction``: shift by the first component with the second, minus that
        without it. Each has ``mean``, ``low``, ``high`` and ``note``, the reason why one is None.
    """
    signs = {
        "first": {(i, j): 0.5 * (2 * i - 1) for i in (0, 1) for j in (0, 1)},
        "second": {(i, j): 0.5 * (2 * j - 1) for i in (0, 1) for j in (0, 1)},
        "interaction": {
            (i, j): (2 * i - 1) * (2 * j - 1) for i in (0, 1) for j in (0, 1)
        },
    }
    arms = {(i, j): (first[i], second[j]) for i in (0, 1) for j in (0, 1)}
    missing = ["-".join(arm) for arm in arms.values() if not _has_d50(curves.get(arm))]
    if missing:
        note = f"undefined: no D50 of {', '.join(missing)}"
        return {name: {**NO_EFFECT, "note": note} for name in signs}
    found = {place: curves[arm] for place, arm in arms.items()}
    return {name: _contrast(found, weights) for name, weights in signs.items()}


def _has_d50(curve: Curve | None) -> bool:
    return curve is not None and bool(np.isfinite(curve.d50))


def _contrast(
    found: Mapping[Any, Curve], weights: Mapping[Any, float]
) -> dict[str, Any]:
    value = sum(weight * found[place].d50 for place, weight in weights.items())
    sampled = all(len(curve.samples) for curve in found.values())
    samples = np.empty(0)
    if sampled:
        parts = [weight * found[place].samples for place, weight in weights.items()]
        samples = np.sum(parts, axis=0)
    note = "" if sampled else "one seed"
    return {**interval(value, samples), "note": note}
