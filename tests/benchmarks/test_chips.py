"""The forecast for many devices, with plans that are not compiled."""

import sys

import pytest

from benchmarks.accelerators import chips
from jmarl.config import ConfigError
from jmarl.forecast.compile_plan import Cost, Plan, forecast
from jmarl.forecast.described import load_config_for
from jmarl.forecast.kernels import Work


def plan(system, overrides, target):
    """Return a plan with collectives on several devices."""
    count = target.count
    reductions = (16.0, 4e6) if count > 1 else (0.0, 0.0)
    return Plan(
        target=target,
        config=load_config_for(target, system, overrides),
        devices=count,
        state_bytes=0,
        temporary_bytes=0,
        step=Cost(Work(100, 1e6), 1e9 * count),
        update=Cost(Work(1000, 1e8, *reductions), 1e11 * count),
        step_loops=(),
        update_loops=(),
        unknown=(),
        arrays=(),
        compile_seconds=0.0,
    )


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(chips, "plan_run", plan)
    words = {"targets": ("h100", "v5e"), "systems": ("mappo", "pqn_vdn"), "most": 64}
    return list(chips.forecasts({**chips.DEFAULTS, **words}))


def test_the_environments_and_the_rows_grow_with_the_devices(rows):
    assert [row["devices"] for row in rows] == [1, 2, 4, 8, 16, 32, 64] * 4
    for first in range(0, len(rows), 7):
        one, *several = rows[first : first + 7]
        assert one["share of ideal"] == 1 and one["transfers"] == 0
        for row in several:
            assert row["environments"] == row["devices"] * one["environments"]
            ideal = row["devices"] * one["rows/s"]
            assert row["share of ideal"] == pytest.approx(row["rows/s"] / ideal)
            assert row["share of ideal"] == pytest.approx(1 - row["transfers"])
        shares = [row["share of ideal"] for row in several]
        assert shares == sorted(shares, reverse=True)


def test_gradient_steps_do_not_grow_with_the_devices(monkeypatch):
    monkeypatch.setattr(chips, "plan_run", plan)
    one, eight = chips.compiled_plans("mappo", "smax_10v10", "h100")
    assert eight.config.num_envs == 8 * one.config.num_envs
    counts = [each.config.system.num_minibatches for each in (one, eight)]
    assert counts[0] == counts[1] > 1
    assert forecast(eight).rows == 8 * forecast(one).rows


def test_a_system_with_a_replay_buffer_is_an_error():
    with pytest.raises(ConfigError, match="systems='qmix': must learn from the minib"):
        chips.compiled_plans("qmix", "smax_10v10", "h100")


@pytest.mark.parametrize("most", [0, 100])
def test_the_number_of_devices_must_be_a_power_of_two(monkeypatch, most):
    monkeypatch.setattr(sys, "argv", ["chips", f"most={most}"])
    with pytest.raises(ConfigError, match=f"most={most}: must be a power of two"):
        chips.main()
