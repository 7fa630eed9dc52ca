"""Loggers: every row is written, and no logger can stop or delay a run."""

import json
import math
import threading
import time

import pytest

from jmarl.config import LoggerConfig
from jmarl.results.metrics_file import read_rows
from jmarl.runs import loggers as log
from jmarl.runs import progress as report
from jmarl.runs.loggers import Logger


def row(update=1, **metrics):
    return {
        "kind": "train",
        "update": update,
        "env_steps": [10 * update, 10 * update],
        "time": 0.5,
        **metrics,
    }


def test_rows_contain_every_seed_and_no_nan(tmp_path):
    logger = log.jsonl_logger(tmp_path / "metrics.jsonl")
    logger.log(row(loss=[0.5, math.nan], nested={"a": math.inf}))
    logger.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == [0.5, None]
    assert json.loads(line)["nested"] == {"a": None}


def test_rows_are_flushed_before_close(tmp_path):
    log.jsonl_logger(tmp_path / "metrics.jsonl").log(row())
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1


def failing_logger(successes=0):
    seen = []

    def write(r):
        seen.append(r)
        if len(seen) > successes:
            raise ConnectionError("server gone")

    return Logger(write, lambda: None)


@pytest.mark.parametrize("successes", [0, 2])
def test_a_failing_logger_warns_once_and_the_others_continue(tmp_path, successes):
    warnings = []
    good = log.guarded_logger(
        "good", lambda: log.jsonl_logger(tmp_path / "m.jsonl"), warnings.append
    )
    bad = log.guarded_logger("bad", lambda: failing_logger(successes), warnings.append)
    both = log.combined_logger([bad, good])
    for i in range(5):
        both.log(row(i))
    both.close()
    assert len(read_rows(tmp_path / "m.jsonl")) == 5
    assert len(warnings) == 1 and warnings[0].startswith(
        "bad: ConnectionError: server gone"
    )


def survives(logger):
    """Return True if logging a row raises no exception."""
    try:
        logger.log(row())
    except ConnectionError:
        return False
    return True


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: an unguarded logger stops the run",
)
def test_a_failing_logger_without_guard():
    assert survives(failing_logger())


def test_a_logger_that_cannot_start_warns():
    warnings = []

    def make():
        raise OSError("no such server")

    logger = log.guarded_logger("remote", make, warnings.append)
    logger.log(row())
    logger.close()
    assert len(warnings) == 1


def test_a_slow_logger_does_not_block_and_drops_rows_with_one_warning():
    warnings, hold, arrived = [], threading.Event(), []

    def make():
        hold.wait(10)
        return Logger(arrived.append, lambda: None)

    logger = log.threaded_logger("slow", make, warnings.append, size=3)
    start = time.monotonic()
    for i in range(10):
        logger.log(row(i))
    assert time.monotonic() - start < 1.0
    assert len(warnings) == 1 and "too slow" in warnings[0]
    hold.set()
    logger.close()
    assert [r["update"] for r in arrived] == [0, 1, 2]


def test_closing_does_not_wait_for_a_hanging_logger():
    hold = threading.Event()
    logger = log.threaded_logger(
        "hung",
        lambda: Logger(lambda r: hold.wait(60), lambda: None),
        print,
        size=1,
        patience_s=0.1,
    )
    for i in range(3):
        logger.log(row(i))
    start = time.monotonic()
    logger.close()
    assert time.monotonic() - start < 2.0
    hold.set()


def test_threaded_rows_are_in_order_and_written_before_close_returns():
    arrived = []
    logger = log.threaded_logger(
        "fast", lambda: Logger(arrived.append, lambda: arrived.append("closed")), print
    )
    for i in range(20):
        logger.log(row(i))
    logger.close()
    assert [r if r == "closed" else r["update"] for r in arrived] == [
        *range(20),
        "closed",
    ]


def test_wandb_falls_back_to_offline(monkeypatch):
    """The client raises as ``wandb.init`` does for an unreachable server."""
    modes, logged, warnings = [], [], []

    class Client:
        Settings = staticmethod(lambda **options: options)

        @staticmethod
        def init(mode, **options):
            modes.append(mode)
            if mode == "online":
                raise ConnectionError("unreachable")
            return type(
                "Run",
                (),
                {
                    "log": staticmethod(logged.append),
                    "finish": staticmethod(lambda: None),
                },
            )

    monkeypatch.setitem(__import__("sys").modules, "wandb", Client)
    logger = log.wandb_logger("folder", "project", "online", "name", warnings.append)
    logger.log(row(loss=[1.0, 2.0]))
    logger.close()
    assert modes == ["online", "offline"]
    assert logged[0]["train/loss/seed_1"] == 2.0 and logged[0]["env_steps"] == 10
    assert len(warnings) == 1


def test_tensorboard_writes_events(tmp_path):
    config = LoggerConfig(
        tensorboard=True, wandb=False, wandb_project="", wandb_mode="disabled"
    )
    logger = log.open_loggers(config, tmp_path, "name", lambda line: pytest.fail(line))
    logger.log(row(loss=[0.5]))
    logger.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1


def test_progress_lines_are_plain_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    reporter = report.open_reporter(every_s=0.0)
    for line in ("one", "two"):
        reporter.progress(line)
    reporter.close()
    assert capsys.readouterr().out == "one\ntwo\n"
