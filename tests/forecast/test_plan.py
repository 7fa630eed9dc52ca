"""Plans: forecasts from counts, their text, and compilations for devices that are not there."""

import dataclasses
import importlib.util
import json
import math
import re
import sys

import jax
import pytest

from jmarl.__main__ import main
from jmarl.config import ConfigError
from jmarl.config.compose import load_config
from jmarl.forecast import compile_plan as plan_module
from jmarl.forecast.compile_plan import Cost, Plan, forecast, plan_run, split
from jmarl.forecast.kernels import Loop, Work
from jmarl.forecast.largest_batch import fitting
from jmarl.forecast.plan_command import plan as plan_command
from jmarl.forecast.plan_text import plan_record, plan_text, sweep_text
from jmarl.forecast.targets import find_target
from jmarl.platforms import platform, tracing_for
from jmarl.runs.exit_codes import ResourceError


STEP, UPDATE = Work(200, 1e6), Work(1000, 5e6, 2, 3e5)


@pytest.fixture(scope="module")
def config():
    return load_config("mappo", ["env=smax_3m", "num_envs=64", "rollout_length=32"])


def plan_of(config, **changes):
    fields = {
        "target": find_target("h100"),
        "config": config,
        "devices": 1,
        "state_bytes": 2**20,
        "temporary_bytes": 2**30,
        "step": Cost(STEP, 1e9),
        "update": Cost(UPDATE, 1e10),
        "step_loops": (),
        "update_loops": (),
        "unknown": (),
        "arrays": ((2**20, "f32[512,512]", "jmarl/nn/linear.py:1"),),
        "compile_seconds": 12.0,
    }
    return Plan(**(fields | changes))


def test_a_forecast_adds_launches_memory_and_arithmetic(config):
    found = forecast(plan_of(config))
    assert found.launches == pytest.approx((1000 + 32 * 200) * 2.5e-6)
    assert found.memory == pytest.approx((5e6 + 32 * 1e6) / 3.35e12)
    assert found.arithmetic == pytest.approx((1e10 + 32e9) / 67e12)
    assert found.bound == "launches"
    assert found.rows_per_second == pytest.approx(64 * 32 / found.seconds)


@pytest.mark.parametrize(
    ("name", "precision", "rate"),
    [
        ("h100", "float32", 67e12),
        ("h100", "tf32", 494.7e12),
        ("h100", "bfloat16", 989.4e12),
        ("v5e", "float32", 197e12 / 6),
        ("v5e", "tf32", 197e12 / 3),
        ("v5e", "bfloat16", 197e12),
        ("t4", "tf32", 8.1e12),
    ],
)
def test_a_forecast_has_the_rate_of_the_precision(config, name, precision, rate):
    changed = dataclasses.replace(config, precision=precision)
    plan = plan_of(changed, target=find_target(name))
    assert forecast(plan).arithmetic == pytest.approx((1e10 + 32e9) / rate)
    assert f"{rate / 1e12:.3g} TFLOP/s of products in {precision} (" in plan_text(plan)


def test_devices_share_the_arithmetic(config):
    one, four = plan_of(config), plan_of(config, devices=4)
    assert forecast(four).arithmetic == pytest.approx(forecast(one).arithmetic / 4)


def test_devices_add_their_gradients_over_the_links(config):
    one, eight = plan_of(config), plan_of(config, devices=8)
    assert forecast(one).transfers == 0 and "transfers" not in plan_text(one)
    transfers = eight.target.links.reduce_seconds(2, 3e5, 8)
    assert forecast(eight).transfers == pytest.approx(transfers)
    assert "transfers 0 %" in plan_text(eight)


def test_a_forecast_for_more_devices_gives_each_the_same_work(config):
    eight = plan_of(config, devices=8)
    more = forecast(eight, 64)
    assert more._replace(transfers=0, rows=0) == forecast(eight)._replace(
        transfers=0, rows=0
    )
    assert more.rows == 8 * forecast(eight).rows
    assert more.transfers > forecast(eight).transfers


def test_a_report_names_what_a_user_asks(config):
    text = plan_text(plan_of(config, unknown=("jit(chunk)/while",)))
    assert text.startswith("mappo on smax_3m for h100, 1 seed\n")
    assert (
        "fits: 1 MiB state, 1.00 GiB temporary per device, 1.4 % of 71.20 GiB" in text
    )
    assert "200 kernels, 977 KiB read and written, 1 GFLOP, for one step" in text
    assert "66 collectives" not in text and "2 collectives with 293 KiB" in text
    assert "the loop jit(chunk)/while has no known length" in text
    assert "1 MiB  f32[512,512]  jmarl/nn/linear.py:1" in text


def test_a_record_has_the_figures_of_the_report(config):
    record = plan_record(plan_of(config))
    assert record["fits"] and record["memory_mb"] == pytest.approx(1074.8)
    assert (record["step_kernels"], record["update_kernels"]) == (200, 1000)
    assert record["collective_mb"] == 0.3 and record["bound"] == "launches"
    parts = record["seconds"]
    rows = record["num_envs"] * record["rollout_length"]
    assert rows / sum(parts.values()) == pytest.approx(
        record["rows_per_second"], rel=0.01
    )
    assert max(parts, key=parts.get) == "launches"
    assert record["rates_from"] == plan_of(config).target.source
    assert json.loads(json.dumps(record)) == record


def test_a_plan_that_does_not_fit_says_so(config):
    text = plan_text(plan_of(config, temporary_bytes=2**37))
    assert "DOES NOT FIT" in text and "179.8 % of" in text


def test_a_sweep_has_a_row_for_each_size(config):
    rows = sweep_text([plan_of(config), plan_of(config, temporary_bytes=2**37)])
    assert [line.split("|")[3].strip() for line in rows.splitlines()[2:]] == [
        "yes",
        "no",
    ]


def test_a_line_through_two_sizes_gives_the_largest_one():
    assert fitting(64, 2_000, 512, 9_168, 18_000) == 64 + 1_000
    assert fitting(64, 2_000, 512, 9_168, 1_000) == 1
    assert fitting(64, 2_000, 512, 9_168, 0) == 0
    assert fitting(64, 2_000, 64, 2_000, 18_000) == 0


def test_an_update_is_what_a_rollout_leaves():
    rollout = Loop("jit(f)/while/body/rollout/while", 32, STEP, ())
    unknown = Loop("jit(f)/while/body/while", None, Work(7), ())
    updates = Loop("jit(f)/while", None, UPDATE, (rollout, unknown))
    parts = split(Loop("", 1, Work(), (updates,)), 32)
    assert parts.step == STEP and parts.update == UPDATE.plus(Work(7))
    assert parts.unknown == (unknown.path,)


def test_loops_are_named_with_what_they_repeat(config):
    agents = Loop("jit(f)/while/body/rollout/while/body/while", 10, Work(6), ())
    agents = agents._replace(line="decoder.py:5")
    rollout = Loop("jit(f)/while/body/rollout/while", 32, STEP, (agents,))
    scan = Loop("scan", 8, Work(9), (), line="scan.py:7")
    minibatch = Loop("minibatch", 2, Work(50), (scan, scan), line="learn.py:2")
    epochs = Loop("epochs", 4, Work(0), (minibatch,), line="learn.py:1")
    updates = Loop("jit(f)/while", None, UPDATE, (rollout, epochs))
    parts = split(Loop("", 1, Work(), (updates,)), 32)
    loops = {"step_loops": parts.step_loops, "update_loops": parts.update_loops}
    text = plan_text(plan_of(config, **loops)).splitlines()
    found = [line.strip() for line in text if "in a loop" in line]
    assert found == [
        "10 x 6 of these in a loop, decoder.py:5",
        "4 x 2 x 8 x 18 of these in a loop, scan.py:7",
        "4 x 2 x 50 of these in a loop, learn.py:2",
    ]


@pytest.mark.parametrize(("trips", "times"), [(32, 1), (16, 2), (None, 1)])
def test_a_rollout_may_be_unrolled_or_of_unknown_length(trips, times):
    body = Work(times * STEP.launches, times * STEP.nbytes)
    rollout = Loop("jit(f)/while/body/rollout/while", trips, body, ())
    updates = Loop("jit(f)/while", None, UPDATE, (rollout,))
    parts = split(Loop("", 1, Work(), (updates,)), 32)
    assert parts.step == STEP and parts.update == UPDATE


def test_a_rollout_without_a_loop_is_an_error():
    updates = Loop("jit(f)/while", None, UPDATE, ())
    with pytest.raises(ConfigError, match="rollout_length=1: has no loop"):
        split(Loop("", 1, Work(), (updates,)), 1)


@pytest.mark.parametrize("flops", [9.4e2, 3.1e6, 1.76e10, 1.4e12, 2.5e15])
def test_operations_have_no_exponent(config, flops):
    text = plan_text(plan_of(config, step=Cost(STEP, flops)))
    (line,) = (x for x in text.splitlines() if x.startswith("  step"))
    assert re.search(r" [\d,.]+ [kMGT]?FLOP, ", line), line


def test_a_run_that_xla_refuses_is_one_line(config, monkeypatch):
    def refuse(_, options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory.\nMore")

    monkeypatch.setattr(plan_module, "compile_lowered", refuse)
    traced = jax.jit(lambda x: x).trace(1.0)
    with pytest.raises(ResourceError) as error:
        plan_module.compile_all(config, find_target("v5e"), [traced])
    assert str(error.value) == (
        "num_envs=64: does not fit v5e; choose fewer environments "
        "(RESOURCE_EXHAUSTED: Ran out of memory.)"
    )


def test_a_sweep_ends_at_a_size_that_xla_refuses(config, monkeypatch, capsys):
    def planned(system, overrides, target):
        if "num_envs=1024" in overrides:
            raise ResourceError("num_envs=1024: does not fit")
        return plan_of(config)

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(plan_module, "plan_run", planned)
    assert plan_command(["mappo", "target=v5e", "plan=sweep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 + 1 and lines[-1] == "num_envs=1024: does not fit"


def test_programs_are_traced_for_the_target_and_then_for_this_machine():
    before = platform()
    with tracing_for("tpu"):
        assert platform() == "tpu"
        assert load_config("mappo", ["env=smax_3m"]).arch.name == "tpu"
    assert platform() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "plan: names no system"),
        (["mappo", "env=smax_3m"], "plan: names no target, such as target=h100"),
        (["mapo", "target=h100"], "mapo: unknown system"),
        (["mappo", "target=h10"], "target=h10: unknown device; did you mean h100"),
        (["mappo", "target=h100", "plan=all"], "plan=all: must be one or sweep"),
        (["mappo", "target=h100", "json=1"], "json=1: must be false or true"),
        (["mappo", "target=h100", "num_env=3"], "num_env=3: unknown key"),
    ],
)
def test_a_wrong_argument_is_one_line(capsys, monkeypatch, words, message):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["jmarl", "plan", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


SMALL = ["env=smax_3m", "num_envs=64", "rollout_rows=1024"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "module"), [("h100", "jax_plugins.xla_cuda12"), ("v5e", "libtpu")]
)
@pytest.mark.parametrize("system", ["mappo", "mam_ppo"])
def test_a_run_compiles_for_a_device_that_is_not_there(system, target, module):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed: make plan-tools")
    plan = plan_run(system, SMALL, find_target(target))
    assert plan.fits and plan.devices == 1 and not plan.unknown
    assert 20 < plan.step.work.launches
    # a step of the environment has no loop; MAM has those over agents
    assert bool(plan.step_loops) == (system == "mam_ppo" and target == "v5e")
    assert plan.update.work.launches > 100
    assert plan.step.flops > 1e6 and plan.update.flops > plan.step.flops
    assert math.isfinite(forecast(plan).rows_per_second)


@pytest.mark.slow
def test_kernels_of_jmarl_compile_where_triton_does():
    if importlib.util.find_spec("jax_plugins") is None:
        pytest.skip("jax_plugins is not installed: make plan-tools")
    gru = ["network=gru", "network.torso=[32]", "network.memory_width=32"]
    few, many = (
        plan_run("mappo", [*SMALL, *gru], find_target(name)) for name in ("h100", "t4")
    )
    assert few.update.work.launches < many.update.work.launches / 2
    assert few.step.work.launches < many.step.work.launches


@pytest.mark.slow
def test_the_devices_of_a_target_share_the_environments():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: make plan-tools")
    plan = plan_run("ippo", SMALL, find_target("v5e:2x2"))
    assert plan.devices == 4
    assert plan.step.work.collectives == 0
    assert 0 < plan.update.work.collective_bytes


PRODUCTS = {
    ("v5e", "float32"): r"convolution\(.*operand_precision={highest,highest}",
    ("v5e", "tf32"): r"convolution\(.*operand_precision={high,high}",
    ("v5e", "bfloat16"): r"convolution\((?!.*operand_precision)",
    ("h100", "float32"): r"\bdot\(.*operand_precision={highest,highest}",
    ("h100", "tf32"): r"\bdot\(.*operand_precision={high,high}",
    ("h100", "bfloat16"): r"\bdot\(.*algorithm=dot_bf16_bf16_f32",
}
"""Matrix products of a precision in compiled programs."""


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), PRODUCTS)
def test_a_plan_compiles_the_products_of_a_precision(target, precision, monkeypatch):
    """Products of other precisions are exact ones."""
    module = {"v5e": "libtpu", "h100": "jax_plugins"}[target]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: make plan-tools")
    texts = []
    parse = plan_module.parse
    monkeypatch.setattr(plan_module, "parse", lambda x: texts.append(x) or parse(x))
    plan_run("ippo", [*SMALL, f"precision={precision}"], find_target(target))
    lines = re.findall(r".*\b(?:dot|convolution)\(.*", texts[0])
    exact = re.compile(PRODUCTS[target, "float32"])
    wanted = re.compile(PRODUCTS[target, precision])
    assert len(lines) > 5
    assert all(wanted.search(line) or exact.search(line) for line in lines)
    assert sum(bool(wanted.search(line)) for line in lines) > 5


def test_a_plan_for_a_gpu_without_bfloat16_is_an_error(capsys):
    if importlib.util.find_spec("jax_plugins") is None:
        pytest.skip("jax_plugins is not installed: make plan-tools")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "ippo", *SMALL, "target=t4", "precision=bfloat16"])
    line = "error: precision='bfloat16': Tesla T4 has no such products; use precision="
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(line)
