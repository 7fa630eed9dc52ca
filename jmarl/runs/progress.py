"""Terminal output of a run: progress lines, and statistics and tables of results."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from jmarl.config import RunConfig
from jmarl.hosts import process_group
from jmarl.results.metrics_file import mean_steps


if TYPE_CHECKING:
    from rich.console import Console


LOSSES = ("loss", "policy_loss", "value_loss", "td_loss", "entropy")
"""Metrics of the progress line, which shows the first three that exist."""


class Reporter(NamedTuple):
    """Terminal output of a run.

    ``info`` and ``warn`` print a line. ``progress`` replaces the last progress line, and
    ``close`` ends it.
    """

    info: Callable[[str], None]
    warn: Callable[[str], None]
    progress: Callable[[str], None]
    close: Callable[[], None]


def open_reporter(every_s: float = 5.0) -> Reporter:
    """Open a reporter with a live progress line on a terminal, else with plain lines.

    Args:
        every_s: Minimum seconds between two plain progress lines.
    """
    from rich.console import Console  # slow to import

    console = Console(highlight=False, soft_wrap=True)
    # Rich reports Jupyter as a terminal, because Jupyter requests colors
    if console.is_terminal and console.file.isatty():
        return _live_reporter(console)
    last = -math.inf

    def progress(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            print(line, flush=True)

    return Reporter(_print_line, _print_warning, progress, lambda: None)


def _print_line(line: str) -> None:
    print(line, flush=True)


def _print_warning(line: str) -> None:
    process = process_group.current()
    which = "" if process.index == 0 else f"process {process.index}: "
    print(f"warning: {which}{line}", file=sys.stderr, flush=True)


def _live_reporter(console: Console) -> Reporter:
    from rich.live import Live

    live = Live(console=console, refresh_per_second=4)

    def progress(line: str) -> None:
        if not live.is_started:
            live.start()
        live.update(line)

    def info(line: str) -> None:
        console.print(line, markup=False)

    def warn(line: str) -> None:
        console.print(f"warning: {line}", style="bold yellow", markup=False)

    return Reporter(info, warn, progress, live.stop)


class _OptionalStream:
    """A stream that discards further output once its reader has closed it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        printable = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: self._stream.write(printable))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        """Send the output of this stream and its buffer to the null device."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def optional_output() -> Iterator[None]:
    """Continue without terminal output if its reader closes it, as ``head`` does."""
    streams = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (s and cast(TextIO, _OptionalStream(s)) for s in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def stage_text(config: RunConfig, stage: int) -> str:
    """Return e.g. ``stage 2 of 3, smax_10v10``; empty if the run has one stage."""
    envs = config.stage_envs
    return f"stage {stage + 1} of {len(envs)}, {envs[stage]}" if len(envs) > 1 else ""


def progress_line(
    row: dict[str, Any], fraction: float, eta_s: float, stage: str = ""
) -> str:
    """Format a training row as one line.

    For several seeds, environment steps are averaged, environment steps per second are
    summed, and other metrics are medians.

    Args:
        row: Row of ``metrics.jsonl``.
        fraction: Completed fraction of the run.
        eta_s: Estimated seconds to the end.
        stage: Text of the curriculum stage, if any.
    """
    if any(row["episodes"]):
        outcomes = _format_metrics(row, {"return": "return", "won": "win rate"})
    else:
        outcomes = ["no episode ended yet"]
    losses = _format_metrics(row, {name: name.replace("_", " ") for name in LOSSES})
    parts = [
        f"{fraction:5.1%}",
        *([stage] if stage else []),
        f"{mean_steps(row['env_steps']):,} env steps",
        f"{row['steps_per_second']:,.0f} env steps/s",
        f"ETA {duration_text(eta_s)}",
        *outcomes,
        *losses[:3],
        *_skipped_text(row.get("skipped_steps", [])),
    ]
    return " | ".join(parts)


def _skipped_text(per_update: list[float]) -> list[str]:
    """Return a text if any seed skipped gradient steps, which means over updates count."""
    most = max((n for n in per_update if n), default=0)
    return [f"up to {most:.3g} gradient steps skipped per update"] if most else []


def evaluation_line(row: dict[str, Any]) -> str:
    """Format an evaluation row as one line."""
    parts = [f"evaluation at {mean_steps(row['env_steps']):,} env steps"]
    for mode in ("greedy", "sampled"):
        names = {f"{mode}/won": "win rate", f"{mode}/return": "return"}
        parts.append(" ".join([mode, *_format_metrics(row, names)]))
    return " | ".join(parts)


def _format_metrics(row: dict[str, Any], names: dict[str, str]) -> list[str]:
    return [
        f"{text} {_median(row[name]):.3g}"
        for name, text in names.items()
        if name in row
    ]


def _median(values: list[float]) -> float:
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return float(statistics.median(finite)) if finite else math.nan


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the start of the block."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start


def duration_text(seconds: float) -> str:
    """Format seconds as ``1:02:03`` or ``2:03``; ``?`` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def size_text(n: float) -> str:
    """Format a number of bytes in B, KiB, MiB, GiB or TiB."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.2f} GiB" if n < 1024 else f"{n / 1024:,.1f} TiB"
