"""Loggers of metrics: JSON lines, and optionally TensorBoard and Weights & Biases.

A row of metrics is one flat dictionary. A metric is a list with one value for each seed.
TensorBoard and Weights & Biases are disabled with one warning if they fail. A row that cannot be
written to ``metrics.jsonl`` is lost. Later rows are written as soon as that is possible again.
Training continues without a pause.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jmarl.config import LoggerConfig
from jmarl.hosts.process_group import is_writer
from jmarl.results.metrics_file import (
    Row,
    iter_rows,
    mean_steps,
    row_filter,
    scalars,
    to_json,
)


Warn = Callable[[str], None]


class Logger(NamedTuple):
    """A destination of rows: ``log`` writes one row, ``close`` flushes and releases."""

    log: Callable[[Row], None]
    close: Callable[[], Any]


def open_loggers(
    config: LoggerConfig, folder: pathlib.Path, name: str, warn: Warn, interval: int = 1
) -> Logger:
    """Open the loggers of a run, as one logger that raises no exceptions.

    In other processes than 0 it writes nothing.

    Args:
        config: The loggers to open; JSON lines are always written.
        folder: The run folder.
        name: Name of the run for Weights & Biases.
        warn: Receives one line for each failure.
        interval: Updates from one training row to the next; 1 logs every row.
    """
    if not is_writer():
        return combined_logger([])
    path = folder / "metrics.jsonl"
    factories: dict[str, Callable[[], Logger]] = {
        "metrics.jsonl": lambda: jsonl_logger(path, warn)
    }
    if config.tensorboard:
        factories["TensorBoard"] = lambda: tensorboard_logger(folder / "tensorboard")
    if config.wandb and config.wandb_mode != "disabled":
        factories["wandb"] = lambda: wandb_logger(
            folder, config.wandb_project, config.wandb_mode, name, warn
        )
    loggers = [guarded_logger(label, make, warn) for label, make in factories.items()]
    return thinned_logger(combined_logger(loggers), path, interval)


def thinned_logger(logger: Logger, path: pathlib.Path, interval: int) -> Logger:
    """Log one training row per interval, and all other rows.

    Args:
        logger: Destination of the rows.
        path: The ``metrics.jsonl`` with the rows so far.
        interval: Result of ``metrics_file.row_interval``.
    """
    keep = row_filter(interval)
    for row in iter_rows(path):
        keep(row)

    def log(row: Row) -> None:
        if keep(row):
            logger.log(row)

    return Logger(log, logger.close)


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


def jsonl_logger(path: pathlib.Path, warn: Warn) -> Logger:
    """Write one JSON object per line, at once.

    A row that cannot be written is lost. The first of several causes a warning, and so
    does the next row that is written.
    """
    lost = 0

    def log(row: Row) -> None:
        nonlocal lost
        try:
            append_line(path, to_json(row))
        except OSError as error:
            if not lost:
                reason = error.strerror or str(error)
                warn(f"{path.name}: {reason}; rows are lost, training continues")
            lost += 1
        else:
            if lost:
                warn(f"{path.name}: rows are written again; rows lost: {lost}")
            lost = 0

    return Logger(log, lambda: None)


def append_line(path: pathlib.Path, line: str) -> None:
    """Append a whole line to a file, or leave the file unchanged.

    Raises:
        OSError: If the line cannot be written.
    """
    data = f"{line}\n".encode()
    end = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, end)
        raise


def tensorboard_logger(folder: pathlib.Path) -> Logger:
    """Write scalars over environment steps (mean over the seeds) for TensorBoard.

    Events are written without tensorboardX's ``SummaryWriter``. Its thread ends at the first
    failed write, and the run would then hang at a full queue.
    """
    from tensorboardX.event_file_writer import EventsWriter  # slow to import
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

    event: Any = event_pb2  # its classes are made by protobuf at run time
    folder.mkdir(exist_ok=True)
    writer = EventsWriter(str(folder / "events"))

    def log(row: Row) -> None:
        step = mean_steps(row["env_steps"])
        for name, value in scalars(row):
            summary = scalar(name, value)
            now = time.time()
            writer.write_event(event.Event(wall_time=now, step=step, summary=summary))
        if row["kind"] != "train":  # it is slow, because it waits for the disk
            writer.flush()

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
