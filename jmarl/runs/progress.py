"""What a run tells its user: the plan, the progress line, tables of results."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.live import Live

from jmarl.config import RunConfig


LOSSES = ("loss", "policy_loss", "value_loss", "td_loss", "entropy")
"""Metrics that the progress line shows, as many as fit."""
Z95 = 1.959964


class Reporter(NamedTuple):
    """``say`` a line, ``warn`` of something, ``progress`` a line that replaces the last one, ``close``."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    progress: Callable[[str], None]
    close: Callable[[], None]


def open_reporter(every_s: float = 5.0) -> Reporter:
    """A live line on a terminal; elsewhere a plain line at once and then every ``every_s`` seconds."""
    console = Console(highlight=False, soft_wrap=True)
    if (
        console.is_terminal and console.file.isatty()
    ):  # Jupyter asks for colors, which Rich takes for a terminal
        return _live(console)
    last = [-math.inf]

    def progress(line: str) -> None:
        if time.monotonic() - last[0] >= every_s:
            last[0] = time.monotonic()
            print(line, flush=True)

    return Reporter(_printed, _warned, progress, lambda: None)


def _printed(line: str) -> None:
    print(line, flush=True)


def _warned(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def _live(console: Console) -> Reporter:
    live = Live(console=console, refresh_per_second=4)

    def progress(line: str) -> None:
        if not live.is_started:
            live.start()
        live.update(line)

    def say(line: str) -> None:
        console.print(line, markup=False)

    def warn(line: str) -> None:
        console.print(f"warning: {line}", style="bold yellow", markup=False)

    return Reporter(say, warn, progress, live.stop)


def stage_text(config: RunConfig, stage: int) -> str:
    """``stage 2 of 3, smax_10v10``; empty for the only stage of a run."""
    worlds = config.stage_envs
    return (
        f"stage {stage + 1} of {len(worlds)}, {worlds[stage]}"
        if len(worlds) > 1
        else ""
    )


def progress_line(
    row: dict[str, Any], share: float, eta_s: float, stage: str = ""
) -> str:
    """One training row in words, after the ``stage`` where there is one to tell.

    Of several seeds: the mean of their env steps, the sum of their env steps/s, the median of any other figure.
    """
    parts = [
        f"{share:5.1%}",
        *([stage] if stage else []),
        f"{mean_steps(row['env_steps']):,} env steps",
        f"{row['steps_per_second']:,.0f} env steps/s",
        f"ETA {duration(eta_s)}",
        *(
            _figures(row, {"return": "return", "won": "win rate"})
            if any(row["episodes"])
            else ["no episode ended yet"]
        ),
        *_figures(row, {name: name.replace("_", " ") for name in LOSSES})[:3],
    ]
    return " | ".join(parts)


def mean_steps(env_steps: list[int]) -> int:
    """What stands for the environment steps of several seeds wherever there is room for one number."""
    return round(sum(env_steps) / len(env_steps))


def evaluation_line(row: dict[str, Any]) -> str:
    """One evaluation in words."""
    names = {"won": "win rate", "return": "return"}
    shown = [
        " ".join(
            [
                mode,
                *_figures(
                    row, {f"{mode}/{name}": text for name, text in names.items()}
                ),
            ]
        )
        for mode in ("greedy", "sampled")
    ]
    return f"evaluation at {mean_steps(row['env_steps']):,} env steps | {' | '.join(shown)}"


def _figures(row: dict[str, Any], names: dict[str, str]) -> list[str]:
    return [
        f"{text} {_median(row[name]):.3g}"
        for name, text in names.items()
        if name in row
    ]


def _median(values: list[float]) -> float:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return float(np.median(known)) if known else math.nan


def interval(x: np.ndarray) -> tuple[float, float, float]:
    """Mean of the episodes and its 95 % interval: Wilson's for what is 0 or 1, else the normal one.

    Wilson (1927) does not collapse to a point when all episodes are won.
    """
    n, mean = len(x), float(np.mean(x))
    if np.isin(x, (0.0, 1.0)).all():
        center = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = (
            Z95
            / (1 + Z95**2 / n)
            * math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n**2))
        )
        return mean, max(0.0, center - half), min(1.0, center + half)
    half = Z95 * float(np.std(x, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return mean, mean - half, mean + half


def summarize(
    results: dict[str, dict[str, np.ndarray]],
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """``{mode: {name: [{mean, low, high} for each seed]}}`` of episodes ``[S, episodes]``."""
    return {
        mode: {
            name: [
                dict(zip(("mean", "low", "high"), interval(seed), strict=True))
                for seed in np.asarray(episodes)
            ]
            for name, episodes in by_name.items()
        }
        for mode, by_name in results.items()
    }


def table(
    summary: dict[str, dict[str, list[dict[str, float]]]], seeds: list[int]
) -> str:
    """The means and intervals as text, one line for each seed and way of acting."""
    lines = []
    for i, seed in enumerate(seeds):
        for mode, by_name in summary.items():
            cells = [
                f"{name} {cells[i]['mean']:.3f} [{cells[i]['low']:.3f}, {cells[i]['high']:.3f}]"
                for name, cells in by_name.items()
            ]
            lines.append(f"  seed {seed:<4} {mode:<8} {'   '.join(cells)}")
    return "\n".join(lines)


def worlds_table(
    summaries: dict[str, dict[str, dict[str, list[dict[str, float]]]]], seeds: list[int]
) -> str:
    """The lines of ``table`` for each of several worlds, with its label at their beginning."""
    width = max(map(len, summaries))
    tables = {
        label: table(summary, seeds).splitlines()
        for label, summary in summaries.items()
    }
    return "\n".join(
        f"  {label:<{width}}{line}" for label, lines in tables.items() for line in lines
    )


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Gives a function that says how many seconds ago the block began."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, ``1:02:03`` or ``2:03``; ``?`` if nobody knows."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def size(number_of_bytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "KiB", "MiB"):
        if number_of_bytes < 1024:
            return f"{number_of_bytes:.3g} {unit}"
        number_of_bytes /= 1024
    return f"{number_of_bytes:.2f} GiB"
