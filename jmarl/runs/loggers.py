"""Loggers of metrics: JSON lines, and optionally TensorBoard and Weights & Biases.

A row of metrics is one flat dictionary. A metric of several seeds is a list without averaging.
A logger that fails is disabled with one warning. Training continues without a pause.
"""

from __future__ import annotations

import contextlib
import pathlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from jmarl.config import LoggerConfig
from jmarl.results.metrics_file import Row, mean_steps, scalars, to_json


Warn = Callable[[str], None]


class Logger(NamedTuple):
    """A destination of rows: ``log`` writes one row, ``close`` flushes and releases."""

    log: Callable[[Row], None]
    close: Callable[[], None]


def open_loggers(
    config: LoggerConfig, folder: pathlib.Path, name: str, warn: Warn
) -> Logger:
    """Open the loggers of a run, as one logger that raises no exceptions.

    Args:
        config: The loggers to open; JSON lines are always written.
        folder: The run folder.
        name: Name of the run for Weights & Biases.
        warn: Receives one line for each failure.
    """
    factories: dict[str, Callable[[], Logger]] = {
        "metrics.jsonl": lambda: jsonl_logger(folder / "metrics.jsonl")
    }
    if config.tensorboard:
        factories["TensorBoard"] = lambda: tensorboard_logger(folder / "tensorboard")
    if config.wandb and config.wandb_mode != "disabled":
        factories["wandb"] = lambda: wandb_logger(
            folder, config.wandb_project, config.wandb_mode, name, warn
        )
    loggers = [guarded_logger(label, make, warn) for label, make in factories.items()]
    return combined_logger(loggers)


def combined_logger(loggers: list[Logger]) -> Logger:
    """Combine several loggers into one."""

    def log(row: Row) -> None:
        for logger in loggers:
            logger.log(row)

    def close() -> None:
        for logger in loggers:
            logger.close()

    return Logger(log, close)


def guarded_logger(label: str, make: Callable[[], Logger], warn: Warn) -> Logger:
    """Build a logger that is disabled at its first exception, with one warning."""
    active: list[Logger] = []

    def attempt(action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            active.clear()
            reason = f"{type(error).__name__}: {error}"
            warn(f"{label}: {reason}; logger disabled, training continues")

    def log(row: Row) -> None:
        if active:
            attempt(lambda: active[0].log(row))

    def close() -> None:
        if active:
            attempt(active[0].close)

    attempt(lambda: active.append(make()))
    return Logger(log, close)


def jsonl_logger(path: pathlib.Path) -> Logger:
    """Write one JSON object per line and flush it; NaN and infinity become ``null``."""
    file = path.open("a", encoding="utf-8")

    def log(row: Row) -> None:
        file.write(to_json(row) + "\n")
        file.flush()

    return Logger(log, file.close)


def tensorboard_logger(folder: pathlib.Path) -> Logger:
    """Write scalars over environment steps (mean over the seeds) for TensorBoard."""
    from tensorboardX import SummaryWriter  # slow to import

    writer = SummaryWriter(str(folder))

    def log(row: Row) -> None:
        steps = mean_steps(row["env_steps"])
        for name, value in scalars(row):
            writer.add_scalar(name, value, steps)

    return Logger(log, writer.close)


def wandb_logger(
    folder: pathlib.Path,
    project: str,
    mode: str,
    name: str,
    warn: Warn,
    connect_s: int = 20,
) -> Logger:
    """Log to Weights & Biases in a separate thread.

    The thread is needed because a connection can block for many seconds. If it is not
    open after ``connect_s`` seconds, the run is written offline.
    """

    def connect() -> Logger:
        import wandb

        def init(mode: Any) -> Any:
            settings = wandb.Settings(init_timeout=connect_s, silent=True)
            return wandb.init(
                project=project,
                dir=str(folder),
                name=name,
                mode=mode,
                settings=settings,
            )

        try:
            run = init(mode)
        except Exception as error:
            reason = type(error).__name__
            warn(f"wandb: {reason}; writing offline, upload later with `wandb sync`")
            run = init("offline")

        def log(row: Row) -> None:
            run.log({**dict(scalars(row)), "env_steps": mean_steps(row["env_steps"])})

        return Logger(log, run.finish)

    return threaded_logger("wandb", connect, warn)


def threaded_logger(
    label: str,
    make: Callable[[], Logger],
    warn: Warn,
    *,
    size: int = 1000,
    patience_s: float = 30.0,
) -> Logger:
    """Run a slow logger in a daemon thread behind a bounded queue.

    Rows are dropped while the queue is full, with one warning.

    Args:
        label: Name of the logger for warnings.
        make: Builds the logger, in the thread.
        warn: Receives one line for each failure.
        size: Rows that the queue holds.
        patience_s: Seconds that ``close`` waits, once for the queue and once for the thread.
    """
    rows: queue.Queue[Row | None] = queue.Queue(size)
    arguments = (rows, label, make, warn)
    thread = threading.Thread(target=_drain, args=arguments, name=label, daemon=True)
    full = threading.Event()

    def log(row: Row) -> None:
        try:
            rows.put_nowait(row)
        except queue.Full:
            if not full.is_set():
                warn(f"{label}: too slow; dropping rows (metrics.jsonl has all rows)")
            full.set()

    def close() -> None:
        with contextlib.suppress(queue.Full):
            rows.put(None, timeout=patience_s)
            thread.join(patience_s)

    thread.start()
    return Logger(log, close)


def _drain(
    rows: queue.Queue[Row | None], label: str, make: Callable[[], Logger], warn: Warn
) -> None:
    logger = guarded_logger(label, make, warn)
    while (row := rows.get()) is not None:
        logger.log(row)
    logger.close()
