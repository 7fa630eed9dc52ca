"""Calibration of the forecast, on a CPU that stands in for an accelerator."""

import json
import sys

import pytest

from benchmarks.accelerators import __main__ as accelerators
from benchmarks.accelerators import calibrate
from jmarl.config import ConfigError
from jmarl.forecast import calibration, compile_plan, plan_text
from jmarl.forecast.calibration import find_calibration
from jmarl.forecast.targets import find_target


RATES = {
    "launch_us": 2.0,
    "bandwidth": 3e12,
    "flops": {"float32": 50e12, "bfloat16": 6e14},
}
TINY = ("num_envs=4", "rollout_length=4", "arch.updates_per_chunk=2", "network=mlp")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Plant a record of the benchmark for an H100."""
    monkeypatch.setattr(calibration, "FOLDER", tmp_path)
    where = {
        "time": "2026-11-30T10:00:00Z",
        "commit": "abcdef0123",
        "device": "NVIDIA H100",
    }
    rows = [{"measured / forecast": ratio} for ratio in (0.8, 1.25)]
    record = {"environment": where, "rates": RATES, "rows": rows}
    (tmp_path / "h100.json").write_text(json.dumps(record))


def test_measured_rates_replace_those_of_the_data_sheet(planted):
    target = find_target("h100:8")
    assert target.launch_s == 2e-6 and target.bandwidth == 3e12
    assert target.rate("float32") == target.rate("tf32") == 50e12
    assert target.rate("bfloat16") == 6e14
    assert target.ratios == (0.8, 1.25)
    assert target.source == "measured on NVIDIA H100, 2026-11-30, commit abcdef0"
    assert "memory_bandwidth: 3350000000000 " in target.description
    sheet = find_target("a100")
    assert find_calibration("a100") is None
    assert sheet.ratios == () and "data sheet" in sheet.source


def test_a_measured_tpu_has_the_rate_of_each_precision(planted, tmp_path):
    record = json.loads((tmp_path / "h100.json").read_text())
    (tmp_path / "v5e.json").write_text(json.dumps(record))
    target = find_target("v5e")
    assert target.rate("float32") == 50e12 and target.rate("tf32") == 2e14


def test_a_plan_says_how_far_forecasts_were_off(planted):
    calibrated, sheet = (
        plan_text.note(find_target(x), "float32") for x in ("h100", "l4")
    )
    text = "estimate; 2 programs ran at 0.8 to 1.25 times their forecasts. The rates are: 2 us"
    assert text in " ".join(calibrated.split())
    assert "2 us a kernel, 3000 GB/s, and\n50 TFLOP/s" in calibrated
    assert "no measurement has calibrated: 2.5 us a kernel, 300 GB/s" in sheet
    without = find_target("h100")._replace(ratios=())
    text = "estimate from measured rates, compared with no program: 2 us a kernel"
    assert text in plan_text.note(without, "float32")


def test_a_device_without_an_entry_is_an_error():
    with pytest.raises(
        ConfigError, match=r"calibrate=True: .* device is cpu, .* run on one of NV"
    ):
        calibrate.calibrate()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calibrate=ture"], "calibrate='ture': must be true or false"),
        (["calibrate=true", "systems=mappo"], "calibrate=True: takes no systems; only"),
    ],
)
def test_wrong_arguments_are_errors(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["accelerators", *words])
    with pytest.raises(ConfigError, match=message):
        accelerators.main()


@pytest.fixture(scope="module")
def rates():
    """Rates of this machine, from small programs. XLA fuses several kernels on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LAUNCHES": 1, "BYTES": 2**22, "WIDTH": 256}.items():
            patch.setattr(calibrate, name, value)
        return calibrate.measure_rates(["float32", "bfloat16"])


def test_rates_are_those_of_the_machine(rates):
    assert 0.01 < rates["launch_us"] < 1e4
    assert 1e8 < rates["bandwidth"] < 1e13
    assert all(1e8 < rate < 1e14 for rate in rates["flops"].values())


def test_programs_are_timed_beside_their_forecast(tmp_path, monkeypatch, rates):
    """The forecast is that of counts and measured rates. A later failure loses no row."""
    monkeypatch.setattr(calibrate, "this_device", lambda: "h100")
    monkeypatch.setattr(calibrate, "measure_rates", lambda names: rates)
    monkeypatch.setattr(calibrate, "ENV", "smax_3m")
    monkeypatch.setattr(calibrate, "REPEATS", 2)
    compile_program, plans = calibrate.compile_program, []

    def compile_tiny(system, target):
        plan, update = compile_program(system, target, TINY)
        plans.append(plan)
        return plan, update

    monkeypatch.setattr(calibrate, "compile_program", compile_tiny)
    monkeypatch.setattr(calibrate, "PROGRAMS", ("ippo", "not a system"))
    path = tmp_path / "h100.json"
    with pytest.raises(ConfigError, match="not a system"):
        calibrate.calibrate(str(path))
    record = json.loads(path.read_text())
    assert record["rates"] == rates
    (row,) = record["rows"]
    (plan,) = plans
    assert plan.devices == 1 and plan.config.num_envs == 4
    assert plan.whole.work.launches > plan.step.work.launches > 0
    seconds = sum(compile_plan.bounds(plan.target, plan.whole, "float32"))
    assert plan.target.launch_s == pytest.approx(1e-6 * rates["launch_us"])
    assert row["forecast rows/s"] == pytest.approx(4 * 4 / seconds)
    assert row["measured rows/s"] > 0
    ratio = row["measured rows/s"] / row["forecast rows/s"]
    assert row["measured / forecast"] == pytest.approx(ratio)
