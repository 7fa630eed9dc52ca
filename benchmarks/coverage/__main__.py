"""Share of simulated studies whose 95 % interval contains the true value.

    python -m benchmarks.coverage [seeds=3,5,10,20] [envs=1,3] [studies=2000] [resamples=300]
        [out=results/coverage.json]

Options:

* ``seeds``: numbers of seeds of a study.
* ``envs``: numbers of environments of a study.
* ``studies``: simulated studies of each case.
* ``resamples``: bootstrap samples of each interval.
* ``out``: JSON file of the record; none by default.

Method: the scores of a study are drawn from a normal or from a skewed (beta) distribution, which
differs between environments. The true value of a statistic is that of 400,000 seeds. Intervals are
those of ``jmarl.results.statistics``: percentiles of the bootstrap, and Student's t.

Output: one row for each distribution, statistic, number of environments and number of seeds. With
2,000 studies, a share of 95 % has a standard error of half a percentage point.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.support.common import Row, parse_arguments, show_and_record
from jmarl.cli.process import exit_code
from jmarl.results.statistics.aggregates import interquartile_mean, mean, median
from jmarl.results.statistics.bootstrap import percentile_interval, student_interval


DEFAULTS: dict[str, Any] = {
    "seeds": (3, 5, 10, 20),
    "envs": (1, 3),
    "studies": 2000,
    "resamples": 300,
    "out": "",
}
TRUTH_SEEDS = 400_000
STATISTICS = {"mean": mean, "IQM": interquartile_mean, "median": median}
INTERVALS = {"percentiles": percentile_interval, "student": student_interval}
Scores = list[Float[np.ndarray, "seeds"]]


def normal(rng: np.random.Generator, seeds: int, envs: int) -> Scores:
    """Draw normal scores; the mean differs between environments."""
    return [rng.normal(0.4 + 0.1 * env, 0.1, seeds) for env in range(envs)]


def skewed(rng: np.random.Generator, seeds: int, envs: int) -> Scores:
    """Draw scores in [0, 1] from beta distributions, most of them near 1."""
    return [rng.beta(4 - 0.5 * env, 1.5, seeds) for env in range(envs)]


DRAWS = {"normal": normal, "skewed": skewed}


def main() -> int:
    """Simulate, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    show_and_record(args, measure(args))
    return 0


def measure(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the shares of each case."""
    for draw, statistic in itertools.product(DRAWS, STATISTICS):
        yield from _rows(draw, statistic, args)


def _rows(draw: str, statistic: str, args: dict[str, Any]) -> Iterator[Row]:
    for envs, seeds in itertools.product(args["envs"], args["seeds"]):
        names = {"scores": draw, "statistic": statistic, "envs": envs, "seeds": seeds}
        shares = {
            name: coverage(
                interval,
                STATISTICS[statistic],
                lambda rng, n, draw=draw, envs=envs: DRAWS[draw](rng, n, envs),
                seeds,
                studies=args["studies"],
                resamples=args["resamples"],
            )
            for name, interval in INTERVALS.items()
        }
        yield names | shares


def coverage(
    interval: Callable[..., Any],
    statistic: Callable[[Scores], Any],
    draw: Callable[[np.random.Generator, int], Scores],
    seeds: int,
    *,
    studies: int = 2000,
    resamples: int = 300,
) -> float:
    """Return the share of simulated studies whose interval contains the true value.

    Args:
        interval: ``interval(statistic, scores, resamples=..., seed=...)``.
        statistic: Function of the scores of all environments.
        draw: ``draw(rng, seeds) -> scores`` of a study.
        seeds: Number of seeds of a study.
        studies: Number of studies.
        resamples: Number of bootstrap samples of each interval.
    """
    rng = np.random.default_rng(1)
    truth = statistic(draw(rng, TRUTH_SEEDS))
    found = (
        interval(statistic, draw(rng, seeds), resamples=resamples, seed=i)
        for i in range(studies)
    )
    return float(np.mean([each.low <= truth <= each.high for each in found]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
