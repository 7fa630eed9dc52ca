"""Variables that name the processes of a run, and values that one process shares with itself."""

import functools
import socket
import threading
import time

import pytest

from jmarl.cli import jobs
from jmarl.cli.process import exit_code
from jmarl.config import ConfigError
from jmarl.hosts import process_group, watch
from jmarl.hosts.process_group import AgreedStop
from jmarl.hosts.start import ADDRESS, COUNT, INDEX, _read_variables, start
from jmarl.runs.exit_codes import ExitCode, ResourceError


GIVEN = {ADDRESS: "host0:1234", COUNT: "2", INDEX: "1"}


def read(monkeypatch, **changes):
    for name, value in (GIVEN | changes).items():
        monkeypatch.setenv(name, value)
    return _read_variables()


def test_the_variables_of_a_process_are_read(monkeypatch):
    found = read(monkeypatch)
    assert found["coordinator_address"] == "host0:1234"
    assert (found["num_processes"], found["process_id"]) == (2, 1)


def test_without_variables_jax_finds_the_processes(monkeypatch):
    assert read(monkeypatch, **{COUNT: "", INDEX: ""}) == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (ADDRESS, "", "distributed=true: JAX_COORDINATOR_ADDRESS is not set; set"),
        (INDEX, "", "distributed=true: JAX_PROCESS_ID is not set; set"),
        (ADDRESS, "host0", "=host0: must be <host>:<port> of process 0"),
        (COUNT, "two", "JAX_NUM_PROCESSES=two: must be an integer from 1 to"),
        (INDEX, "2", "JAX_PROCESS_ID=2: must be an integer from 0 to 1"),
    ],
)
def test_an_invalid_variable_is_one_line(monkeypatch, name, value, message):
    with pytest.raises(ConfigError) as error:
        read(monkeypatch, **{name: value})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_that_is_not_distributed_connects_nothing():
    start(False)
    assert process_group.count() == 1 and process_group.is_writer()
    assert process_group.share([1, "a"]) == [1, "a"]
    assert process_group.agreed(True) and not process_group.agreed(False)


def test_an_error_of_process_0_is_one_line_in_the_others(monkeypatch, capsys):
    def fail():
        raise ResourceError("run_dir=a: no space left;\nfree space")

    sent = []
    monkeypatch.setattr(process_group, "count", lambda: 2)
    monkeypatch.setattr(process_group, "is_writer", lambda: True)
    monkeypatch.setattr(
        process_group, "share", lambda value: sent.append(value) or value
    )
    assert exit_code(lambda: process_group.by_writer(fail)) == ExitCode.RESOURCE
    capsys.readouterr()
    monkeypatch.setattr(process_group, "is_writer", lambda: False)
    monkeypatch.setattr(process_group, "share", lambda value: sent[0])
    assert exit_code(lambda: process_group.by_writer(fail)) == ExitCode.CRASHED
    reason = "ResourceError: run_dir=a: no space left; free space"
    assert capsys.readouterr().err == f"error: process 0 of 2 failed: {reason}\n"


def test_all_processes_stop_for_the_signal_of_one(monkeypatch):
    asked = []

    def largest(value):
        asked.append(value)
        return 2 if len(asked) == 3 else value

    monkeypatch.setattr(process_group, "largest", largest)
    stop = AgreedStop(lambda: "", ("SIGTERM", "SIGINT"))
    assert [stop() for _ in range(5)] == ["", "", "SIGINT", "SIGINT", "SIGINT"]
    assert asked == [0, 0, 0]  # agreed once, then known


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["distributed=true"], True),
        (["distributed=True"], True),
        (["++distributed=true"], True),
        (["distributed=false"], False),
        (["-m"], False),
        ([], False),
    ],
)
def test_a_resumed_run_reads_the_key_as_a_new_one_does(words, expected, monkeypatch):
    given = []
    monkeypatch.setattr(jobs, "start", given.append)
    with pytest.raises(ConfigError):  # there is no such run
        jobs._resume("mappo", "no_such_run", words)
    assert given == [expected]


def test_strangers_at_the_port_are_not_processes_of_the_run(monkeypatch):
    """Neither a silent connection nor one without the token keeps a process waiting."""
    followed = []
    monkeypatch.setattr(process_group, "count", lambda: 2)
    monkeypatch.setattr(watch._watch, "follow", lambda name, _: followed.append(name))
    server = socket.create_server(("localhost", 0))
    port = server.getsockname()[1]
    silent = socket.create_connection(("localhost", port))
    wrong = socket.create_connection(("localhost", port))
    wrong.sendall(b'["guess", "stranger"]\n')
    accept = functools.partial(watch._accept, server, "token")
    threading.Thread(target=accept, daemon=True).start()
    assert watch._connect("token", port, ["localhost"])
    deadline = time.monotonic() + 5
    while len(followed) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    own = str(process_group.current())
    assert sorted(followed) == sorted([own, "process 0 of 2 (localhost)"])
    silent.close()
    wrong.close()


def test_another_service_is_not_process_0():
    server = socket.create_server(("localhost", 0))

    def answer():
        connection, _ = server.accept()
        connection.sendall(b"220 mail\n")

    threading.Thread(target=answer, daemon=True).start()
    assert not watch._connect("token", server.getsockname()[1], ["localhost"])
