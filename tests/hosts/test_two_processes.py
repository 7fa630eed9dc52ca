"""Two processes of two devices: the same run as one process of four, also after a loss."""

import signal
import time

import pytest
from pairs import arguments, assert_equal, finish, run_alone, run_pair, start_pair
from records import status, steps


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the folder of a run on one process of four devices."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    ((code, _, errors),) = run_alone(("qmix", *arguments("qmix", folder)))
    assert code == 0, errors
    return folder


def test_two_processes_give_the_run_of_one(alone, tmp_path):
    folder = tmp_path / "run"
    (first, output, errors), second = run_pair(("qmix", *arguments("qmix", folder)))
    assert (first, second[0]) == (0, 0), errors
    assert_equal(folder, alone)
    assert "devices     4 x cpu (cpu) of 2 processes" in output
    shown = [line for line in second[1].splitlines() if "[Gloo]" not in line]
    assert shown == []  # process 0 alone prints
    files = {path.name for path in folder.iterdir()}
    assert files == {path.name for path in alone.iterdir()}
    assert status(folder)["state"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("system", ["mappo", "mam_ppo"])
def test_systems_give_the_run_of_one_process(system, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    ((code, _, errors),) = run_alone((system, *arguments(system, one)))
    assert code == 0, errors
    results = run_pair((system, *arguments(system, two)))
    assert [code for code, *_ in results] == [0, 0], results
    assert_equal(two, one)


LONG = 200
"""Updates of a run that is interrupted in between."""


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "run"
    ((code, _, errors),) = run_alone(("qmix", *arguments("qmix", folder, LONG)))
    assert code == 0, errors
    return folder


def interrupt(folder, index, number):
    """Send a signal to one process of two after the first evaluation of training.

    Returns the results of both, and the seconds until both have ended.
    """
    pair = start_pair(("qmix", *arguments("qmix", folder, LONG)))
    assert pair[0].stdout is not None
    for line in pair[0].stdout:
        if line.startswith("evaluation at") and " at 0 env" not in line:
            break
    pair[index].send_signal(number)
    sent = time.monotonic()
    results = finish(pair)
    return results, time.monotonic() - sent


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_to_one_process_stops_both_at_one_chunk(index, long_alone, tmp_path):
    folder = tmp_path / "run"
    results, _ = interrupt(folder, index, signal.SIGTERM)
    assert [code for code, *_ in results] == [75, 75], results
    assert status(folder)["state"] == "interrupted"
    message = status(folder)["message"]
    assert message == f"stopped by SIGTERM after update {steps(folder)[-1]}"
    assert f"resume={folder} distributed=true" in results[0][1]
    results = run_pair(("qmix", f"resume={folder}"))
    assert [code for code, *_ in results] == [0, 0], results
    assert_equal(folder, long_alone)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "resume"), [(0, run_alone), (1, run_pair)])
def test_a_killed_process_ends_the_other_which_names_it(
    index, resume, long_alone, tmp_path
):
    folder = tmp_path / "run"
    results, seconds = interrupt(folder, index, signal.SIGKILL)
    other, _, errors = results[1 - index]
    assert results[index][0] == -signal.SIGKILL
    assert other == 1 and seconds < 60, errors
    assert f"process {index} of 2" in errors and "resume the run" in errors
    results = resume(("qmix", f"resume={folder}"))
    assert [code for code, *_ in results] == [0] * len(results), results
    assert_equal(folder, long_alone)
