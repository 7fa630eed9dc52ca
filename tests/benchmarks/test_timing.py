"""Tests of the benchmarks' shared code: timing, arguments and changed parameters."""

import time

import jax.numpy as jnp
import pytest

from benchmarks.support import common


def test_all_changed_needs_a_finite_change_of_every_array():
    zeros = jnp.zeros(3)
    ones = jnp.ones(3)
    nans = jnp.full(3, jnp.nan)
    one_entry = zeros.at[2].set(1.0)
    before = {"a": zeros, "b": ones}
    assert common.all_changed(before, {"a": one_entry, "b": zeros})
    assert not common.all_changed(before, before)
    assert not common.all_changed(before, {"a": ones, "b": ones})
    assert not common.all_changed(before, {"a": ones, "b": nans})


def test_arguments_are_cast_to_the_type_of_their_default():
    defaults = {"envs": (64,), "repeats": 4, "out": ""}
    values = common.parse_arguments(defaults, ["envs=8,16", "repeats=2"])
    assert values == {"envs": (8, 16), "repeats": 2, "out": ""}


def test_unknown_argument_exits_with_code_2_and_names_the_nearest(capsys):
    defaults = {"repeats": 4, "out": ""}
    with pytest.raises(SystemExit) as stop:
        common.parse_arguments(defaults, ["repeat=2"])
    assert stop.value.code == 2
    line = "unknown argument 'repeat'; did you mean 'repeats'?\n"
    assert capsys.readouterr().err == line


def time_samples(
    monkeypatch,
    baseline: list[float],
    candidate: list[float],
    attempts: int = 1,
    clock: str = "cpu",
) -> common.PairTiming:
    """Call ``time_pair`` with given seconds of one clock; the other always measures 1."""
    seconds = {"baseline": iter(baseline), "candidate": iter(candidate)}

    def sample(call, calls):
        elapsed = next(seconds[call()])
        return (elapsed, 1.0) if clock == "cpu" else (1.0, elapsed)

    monkeypatch.setattr(common, "_calls_per_sample", lambda call: 1)
    monkeypatch.setattr(common, "_sample", sample)
    wall = clock == "wall"
    return common.time_pair(
        lambda: "baseline", lambda: "candidate", 4, attempts, wall=wall
    )


@pytest.mark.parametrize("clock", ["cpu", "wall"])
def test_ratio_is_between_minima_on_the_given_clock(monkeypatch, clock):
    baseline = [4.0, 9.0, 4.1, 9.0]
    candidate = [2.0, 7.0, 2.0, 2.1]
    pair = time_samples(monkeypatch, baseline, candidate, clock=clock)
    assert pair.ratio == 2.0
    assert pair.trusted
    assert pair.noise == pytest.approx(0.025)


def test_ratio_is_not_trusted_if_one_side_differs_from_itself(monkeypatch):
    candidate = [2.0, 2.0, 3.0, 3.0]
    pair = time_samples(monkeypatch, [4.0] * 4, candidate)
    assert pair.noise == pytest.approx(0.5)
    assert not pair.trusted


def test_the_previous_call_adds_no_noise(monkeypatch):
    """In A B B A a sample follows its own side or the other, with a constant difference."""
    baseline = [4.0, 6.0] * 2
    candidate = [2.0, 3.0] * 2
    pair = time_samples(monkeypatch, baseline, candidate)
    assert pair.trusted


def test_sample_of_a_short_call_is_many_calls(monkeypatch):
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 0.05)
    calls = []

    def call() -> None:
        calls.append(time.sleep(1e-3))

    timing = common.time_call(call, repeats=2)
    assert 20 < len(calls) <= 1 + 4 + 2 * 50
    assert 1e-3 <= timing.wall_min < 1e-2


def test_a_second_round_can_reduce_the_noise(monkeypatch):
    candidate = [2.0, 2.0, 3.0, 3.0] + [2.0] * 4
    pair = time_samples(monkeypatch, [4.0] * 8, candidate, attempts=2)
    assert pair.trusted
    assert pair.ratio == 2.0
