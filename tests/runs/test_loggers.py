"""Loggers: every row is written, and no logger can stop or delay a run."""

import contextlib
import errno
import functools
import io
import json
import math
import os
import resource
import shutil
import subprocess
import threading
import time

import pytest
import toy
from documented import columns

from jmarl.config import LoggerConfig
from jmarl.results.metrics_file import (
    read_rows,
    row_filter,
    row_interval,
    to_json,
    truncate_rows,
)
from jmarl.runs import loggers as log
from jmarl.runs import progress as report
from jmarl.runs import run as run_module
from jmarl.runs.folder import resume_config
from jmarl.runs.loggers import Logger
from jmarl.runs.run import run


def row(update=1, **metrics):
    return {
        "kind": "train",
        "update": update,
        "env_steps": [10 * update, 10 * update],
        "time": 0.5,
        **metrics,
    }


def test_rows_contain_every_seed_and_no_nan(tmp_path):
    logger = log.jsonl_logger(tmp_path / "metrics.jsonl", pytest.fail)
    logger.log(row(loss=[0.5, math.nan], nested={"a": math.inf}))
    logger.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == [0.5, None]
    assert json.loads(line)["nested"] == {"a": None}


def test_rows_are_flushed_before_close(tmp_path):
    log.jsonl_logger(tmp_path / "metrics.jsonl", pytest.fail).log(row())
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1


LOST = "metrics.jsonl: {}; rows are lost, training continues"


@contextlib.contextmanager
def largest_file(size):
    """Limit the size of every file, as a disk with little space does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_the_rows_that_do_not_fit(tmp_path):
    """The third row is partly written before the limit, and row 6 after the limit is raised."""
    path, warnings = tmp_path / "metrics.jsonl", []
    logger = log.jsonl_logger(path, warnings.append)
    size = len(to_json(row(1))) + 1
    with largest_file(2 * size + size // 2):
        for i in range(1, 6):
            logger.log(row(i))
        assert path.stat().st_size == 2 * size
    assert warnings == [LOST.format("File too large")]
    for i in range(6, 9):
        logger.log(row(i))
    logger.close()
    assert path.read_text().splitlines() == [to_json(row(i)) for i in (1, 2, 6, 7, 8)]
    assert warnings[1:] == ["metrics.jsonl: rows are written again; rows lost: 3"]


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    warnings = []
    config = LoggerConfig(False, False, "", "disabled")
    with monkeypatch.context() as patch:
        patch.setattr(log, "append_line", full)
        logger = log.open_loggers(config, tmp_path, "name", warnings.append)
        for i in (1, 2, 3):
            logger.log(row(i))
    assert warnings == [LOST.format("No space left on device")]
    logger.log(row(4))
    assert [r["update"] for r in read_rows(tmp_path / "metrics.jsonl")] == [4]


@pytest.fixture
def small_disk(tmp_path):
    """Return the folder of a file system of two pages; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = 2 * os.sysconf("SC_PAGE_SIZE")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(command, capture_output=True).returncode == 0:
            yield folder
            subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("cannot mount a file system")


def test_a_small_disk_is_filled_with_whole_rows_and_used_again(small_disk):
    path, warnings = small_disk / "metrics.jsonl", []
    (small_disk / "other").write_bytes(bytes(os.sysconf("SC_PAGE_SIZE")))
    logger = log.jsonl_logger(path, warnings.append)
    for i in range(100):
        logger.log(row(i, loss=[1 / 3, 2 / 3]))
    lines = path.read_text().splitlines()
    assert 10 < len(lines) < 100
    assert lines == [to_json(row(i, loss=[1 / 3, 2 / 3])) for i in range(len(lines))]
    assert warnings == [LOST.format("No space left on device")]
    (small_disk / "other").unlink()
    logger.log(row(100))
    assert path.read_text().splitlines() == [*lines, to_json(row(100))]
    assert warnings[1:] == [
        f"metrics.jsonl: rows are written again; rows lost: {100 - len(lines)}"
    ]


def test_a_full_disk_disables_tensorboard_and_does_not_stop_the_run(tmp_path):
    warnings = []
    logger = log.guarded_logger(
        "TensorBoard", lambda: log.tensorboard_logger(tmp_path), warnings.append
    )

    def log_all():
        for i in range(1, 500):
            logger.log(row(i, kind="eval", loss=[0.5]))
        logger.close()

    thread = threading.Thread(target=log_all, daemon=True)
    with largest_file(1000):
        thread.start()
        thread.join(20)
    assert not thread.is_alive()
    reason = "OSError: [Errno 27] File too large"
    assert warnings == [f"TensorBoard: {reason}; logger disabled, training continues"]


def log_run(path, rows, interval, warn=pytest.fail):
    """Log rows as a run does that has written ``path`` so far."""
    logger = log.jsonl_logger(path, warn)
    logger = log.thinned_logger(logger, path, interval)
    for each in rows:
        logger.log(each)
    logger.close()


def test_a_thinned_run_that_is_resumed_has_the_rows_of_an_uninterrupted_one(tmp_path):
    rows = []
    for update in [*range(1, 20), *range(22, 60, 3), 61]:
        rows.append(row(update))
        if update % 5 == 0:
            rows.append(row(update, kind="eval"))
    log_run(tmp_path / "whole.jsonl", rows, 4)
    whole = read_rows(tmp_path / "whole.jsonl")
    kinds = [r["kind"] for r in whole]
    assert kinds.count("eval") == sum(r["kind"] == "eval" for r in rows)
    assert kinds.count("train") == 15
    path = tmp_path / "parts.jsonl"
    for killed in range(0, len(rows), 3):
        for saved in (killed // 2, killed):
            path.unlink(missing_ok=True)
            log_run(path, rows[:killed], 4)
            before = [to_json(each) for each in rows[:saved]]
            is_kept = row_filter(4)
            truncate_rows(path, lambda r: to_json(r) in before and is_kept(r))
            log_run(path, rows[saved:], 4)
            assert read_rows(path) == whole


def failing_logger(successes=0):
    seen = []

    def write(r):
        seen.append(r)
        if len(seen) > successes:
            raise ConnectionError("server gone")

    return Logger(write, lambda: None)


@pytest.mark.fault(6)
@pytest.mark.parametrize("successes", [0, 2])
def test_a_failing_logger_warns_once_and_the_others_continue(tmp_path, successes):
    warnings = []
    path = tmp_path / "m.jsonl"
    good = log.guarded_logger(
        "good", lambda: log.jsonl_logger(path, pytest.fail), warnings.append
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


@pytest.mark.fault(6)
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


@pytest.mark.fault(6)
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


@pytest.mark.fault(6)
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


@pytest.mark.fault(6)
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


@pytest.fixture(scope="module")
def finished_and_output(tmp_path_factory):
    """Return the folder of a run of one seed that writes to TensorBoard, and its output."""
    toy.install()
    folder = tmp_path_factory.mktemp("runs") / "one seed"
    logger = LoggerConfig(True, False, "", "disabled")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run(toy.config(run_dir=str(folder), logger=logger)) == 0
    return folder, output.getvalue()


@pytest.fixture(scope="module")
def finished(finished_and_output):
    return finished_and_output[0]


def json_rows(folder):
    """Return the rows as they are in the file."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_numbers(rows):
    for each in rows:
        values = [value for name, value in each.items() if name != "kind"]
        assert all(isinstance(value, int | float) for value in values)


def test_the_metrics_of_a_run_of_one_seed_are_numbers(finished):
    rows = json_rows(finished)
    assert {each["kind"] for each in rows} == {"train", "eval", "absolute"}
    assert_numbers(rows)


def test_the_end_of_a_run_names_the_viewer_of_its_event_files(finished_and_output):
    folder, output = finished_and_output
    assert list((folder / "tensorboard").glob("events*"))
    assert f"tensorboard --logdir '{folder}'" in output.splitlines()[-1]


def test_every_column_of_a_run_is_documented_for_its_rows(finished):
    documented = columns()
    for each in json_rows(finished):
        kinds = [documented[name].rows for name in each]
        assert all(rows == "all" or each["kind"] in rows for rows in kinds)


def test_the_columns_of_each_seed_are_documented_as_such(finished):
    per_seed = {name for name, column in columns().items() if column.each_seed == "yes"}
    for each in read_rows(finished / "metrics.jsonl"):
        lists = {name for name, value in each.items() if isinstance(value, list)}
        assert lists == each.keys() & per_seed


def test_a_run_of_an_earlier_version_is_resumed_and_thinned(
    finished, tmp_path, monkeypatch
):
    """Its file has lists for one seed, and more training rows than the extended run."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "metrics.jsonl"
    old = read_rows(path)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in old))
    few = functools.partial(row_interval, limit=3)
    monkeypatch.setattr(run_module, "row_interval", few)
    extended = resume_config(str(folder), [f"total_timesteps={12 * 64}"])
    assert run(extended) == 0
    assert_numbers(json_rows(folder))
    rows = read_rows(path)
    train, evals, old_evals = (
        [each for each in some if each["kind"] == kind]
        for some, kind in ((rows, "train"), (rows, "eval"), (old, "eval"))
    )
    assert [each["update"] for each in train] == [4, 8, 12]
    assert [each["update"] for each in evals] == [*range(0, 13, 2)]
    assert evals[: len(old_evals)] == old_evals
