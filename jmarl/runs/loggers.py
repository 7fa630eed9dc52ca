"""Where metrics go: a JSON line always; TensorBoard and Weights & Biases by choice.

A row is one flat dictionary, with a list over seeds for each metric, which is never averaged away.
A logger that fails is named once and left out; training never stops or waits for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jmarl.config import LoggerConfig
from jmarl.runs.progress import mean_steps


Row = dict[str, Any]
Warn = Callable[[str], None]


class Logger(NamedTuple):
    """``log(row)`` writes one row, ``close()`` flushes and ends."""

    log: Callable[[Row], None]
    close: Callable[[], None]


def open_loggers(
    config: LoggerConfig, folder: pathlib.Path, name: str, warn: Warn
) -> Logger:
    """The loggers that a run asks for, as one that cannot fail."""
    makers: dict[str, Callable[[], Logger]] = {
        "metrics.jsonl": lambda: jsonl(folder / "metrics.jsonl")
    }
    if config.tensorboard:
        makers["TensorBoard"] = lambda: tensorboard(folder / "tensorboard")
    if config.wandb and config.wandb_mode != "disabled":
        makers["wandb"] = lambda: wandb(
            folder, config.wandb_project, config.wandb_mode, name, warn
        )
    return together(
        {label: guarded(label, make, warn) for label, make in makers.items()}
    )


def together(loggers: dict[str, Logger]) -> Logger:
    """One logger out of several."""

    def log(row: Row) -> None:
        for logger in loggers.values():
            logger.log(row)

    def close() -> None:
        for logger in loggers.values():
            logger.close()

    return Logger(log, close)


def guarded(label: str, make: Callable[[], Logger], warn: Warn) -> Logger:
    """A logger that, at its first exception, is named in a warning and silent ever after."""
    inner: list[Logger] = []

    def attempt(action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            inner.clear()
            warn(
                f"{label}: {type(error).__name__}: {error}; nothing more goes there, training goes on"
            )

    def log(row: Row) -> None:
        if inner:
            attempt(lambda: inner[0].log(row))

    def close() -> None:
        if inner:
            attempt(inner[0].close)

    attempt(lambda: inner.append(make()))
    return Logger(log, close)


def jsonl(path: pathlib.Path) -> Logger:
    """One JSON object a line, flushed row by row; what is not finite becomes ``null``."""
    file = path.open("a", encoding="utf-8")

    def log(row: Row) -> None:
        file.write(json.dumps(_plain(row), allow_nan=False) + "\n")
        file.flush()

    return Logger(log, file.close)


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a ``metrics.jsonl``; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def truncate_rows(path: pathlib.Path, keep: Callable[[Row], bool]) -> None:
    """Drop the rows that a resumed run will write again."""
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if keep(row)]
    scratch = path.with_suffix(".tmp")
    scratch.write_text("".join(kept), encoding="utf-8")
    scratch.replace(path)


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """``(name, value)`` of the finite metrics of a row, one for each seed: ``train/loss/seed_1``."""
    for name, values in row.items():
        if name in ("kind", "update", "env_steps"):
            continue
        per_seed = values if isinstance(values, list) else [values]
        for i, value in enumerate(per_seed):
            if value is not None and math.isfinite(value):
                yield (
                    f"{row['kind']}/{name}"
                    + (f"/seed_{i}" if len(per_seed) > 1 else ""),
                    value,
                )


def tensorboard(folder: pathlib.Path) -> Logger:
    """Scalars over environment steps (the mean of the seeds') for TensorBoard."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(row: Row) -> None:
        for name, value in scalars(row):
            writer.add_scalar(name, value, mean_steps(row["env_steps"]))

    return Logger(log, writer.close)


def wandb(
    folder: pathlib.Path,
    project: str,
    mode: str,
    name: str,
    warn: Warn,
    connect_s: int = 20,
) -> Logger:
    """Weights & Biases from a thread of its own, because an unreachable server blocks for many seconds.

    Falls back to offline mode if the server does not answer. Rows that do not fit the bounded
    queue are dropped, with one warning.
    """

    def connect() -> Logger:
        import wandb as client

        def begin(mode: Any) -> Any:
            settings = client.Settings(init_timeout=connect_s, silent=True)
            return client.init(
                project=project,
                dir=str(folder),
                name=name,
                mode=mode,
                settings=settings,
            )

        try:
            run = begin(mode)
        except Exception as error:
            warn(
                f"wandb: {type(error).__name__}; it writes offline, `wandb sync` uploads later"
            )
            run = begin("offline")
        return Logger(
            lambda row: run.log(
                {**dict(scalars(row)), "env_steps": mean_steps(row["env_steps"])}
            ),
            run.finish,
        )

    return threaded("wandb", connect, warn)


def threaded(
    label: str,
    make: Callable[[], Logger],
    warn: Warn,
    *,
    size: int = 1000,
    patience_s: float = 30.0,
) -> Logger:
    """Run a slow logger in a daemon thread behind a queue of ``size`` rows; closing waits ``patience_s`` at most."""
    rows: queue.Queue[Row | None] = queue.Queue(size)
    thread = threading.Thread(
        target=_drain, args=(rows, label, make, warn), name=label, daemon=True
    )
    full = threading.Event()

    def log(row: Row) -> None:
        try:
            rows.put_nowait(row)
        except queue.Full:
            if not full.is_set():
                warn(
                    f"{label}: too slow; rows are dropped there, metrics.jsonl has them all"
                )
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
    logger = guarded(label, make, warn)
    while (row := rows.get()) is not None:
        logger.log(row)
    logger.close()


def _plain(value: Any) -> Any:
    """JSON without NaN and infinities, which the format does not know."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
