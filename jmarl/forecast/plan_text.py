"""Text of a plan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jmarl.forecast.compile_plan import Cost, Plan, forecast
from jmarl.forecast.kernels import Repetition
from jmarl.forecast.targets import Target
from jmarl.results.tables import markdown
from jmarl.runs.progress import size_text


NOTE = """\
Kernels and bytes are counted in the compiled program, operations in the traced one. The speed is an
estimate{calibrated}: {launch:.3g} us a kernel, {bandwidth:.4g} GB/s, and
{flops:.3g} TFLOP/s of products in {precision} ({source})."""
LOOPS = 5
"""Most loops that are listed for a part of a program."""
SWEEP = (
    "num_envs",
    "memory",
    "fits",
    "kernels per step",
    "kernels per update",
    "rows/s",
    "bound by",
)


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the figures of a plan as plain data, in MB, GFLOP and seconds."""
    found = forecast(plan)
    whole = plan.whole.work
    return {
        "devices": plan.devices,
        "num_envs": plan.config.num_envs,
        "num_seeds": plan.config.num_seeds,
        "rollout_length": plan.config.rollout_length,
        "fits": plan.fits,
        "memory_mb": round(plan.needed / 1e6, 1),
        "step_kernels": plan.step.work.launches,
        "step_mb": round(plan.step.work.nbytes / 1e6, 2),
        "step_gflop": round(plan.step.flops / 1e9, 4),
        "update_kernels": plan.update.work.launches,
        "update_mb": round(plan.update.work.nbytes / 1e6, 1),
        "update_gflop": round(plan.update.flops / 1e9, 2),
        "collectives": whole.collectives,
        "collective_mb": round(whole.collective_bytes / 1e6, 2),
        "unknown_loops": len(plan.unknown),
        "rows_per_second": round(found.rows_per_second),
        "bound": found.bound,
        "seconds": {name: float(f"{part:.3g}") for name, part in found.parts.items()},
        "rates_from": plan.target.source,
        "compile_s": round(plan.compile_seconds, 1),
    }


def plan_text(plan: Plan) -> str:
    """Return the report of a plan, one line for each quantity."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    config, target = plan.config, plan.target
    rows = config.num_envs * config.rollout_length
    seeds = f"{config.num_seeds} seed" + "s" * (config.num_seeds > 1)
    yield f"{config.system_name} on {config.env['name']} for {target.name}, {seeds}"
    yield _field("devices", f"{plan.devices} x {target.kind}, {_unused(plan)}")
    yield _field("compiled", f"in {plan.compile_seconds:.0f} s")
    yield _field(
        "update",
        f"{rows:,} rows per seed = {config.num_envs} environments x "
        f"{config.rollout_length} time steps",
    )
    yield _field("memory", memory_text(plan))
    yield _field("step", f"{_cost(plan.step)}, for one step of all environments")
    yield from _loops(plan.step_loops)
    yield _field("learning", f"{_cost(plan.update)}, for the rest of an update")
    yield from _loops(plan.update_loops)
    yield _field("devices talk", _collectives(plan))
    yield _field("speed", speed_text(plan))
    for path in plan.unknown:
        yield _field("unknown", f"the loop {path} has no known length; counted once")
    yield _field("arrays", "the largest:")
    for nbytes, text, line in plan.arrays:
        yield _field("", f"{size_text(nbytes):>9}  {text}  {_place(line)}")
    yield note(target, config.precision)


def note(target: Target, precision: str) -> str:
    """Return what the figures of a plan mean.

    Args:
        target: Devices.
        precision: Precision of matrix products.
    """
    return NOTE.format(
        calibrated=_calibrated(target),
        launch=1e6 * target.launch_s,
        bandwidth=target.bandwidth / 1e9,
        flops=target.rate(precision) / 1e12,
        precision=precision,
        source=target.source,
    )


def _calibrated(target: Target) -> str:
    """Return whether rates are measured, and how far speeds were from their forecasts."""
    if not target.is_measured:
        return " that no measurement has calibrated"
    if not target.ratios:
        return " from measured rates, compared with no program"
    span = f"{min(target.ratios):.3g} to {max(target.ratios):.3g}"
    return f"; {len(target.ratios)} programs ran at {span} times their forecasts. The rates are"


def _field(name: str, text: str) -> str:
    return f"  {name:<13} {text}".rstrip()


def _unused(plan: Plan) -> str:
    unused = plan.target.count - plan.devices
    shared = "which share the environments" if plan.devices > 1 else "all environments"
    return f"{shared}; {unused} unused" if unused else shared


def memory_text(plan: Plan) -> str:
    """Return whether a plan fits, and by how much."""
    parts = (
        f"{size_text(plan.state_bytes)} state, "
        f"{size_text(plan.temporary_bytes)} temporary per device"
    )
    share = plan.needed / plan.usable
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return f"{verdict}: {parts}, {100 * share:.1f} % of {size_text(plan.usable)}"


def _cost(cost: Cost) -> str:
    work = cost.work
    return (
        f"{work.launches:,.0f} kernels, {size_text(work.nbytes)} read and written, "
        f"{_flops_text(cost.flops)}"
    )


def _loops(repetitions: Iterable[Repetition]) -> Iterator[str]:
    """Yield the loops with the most kernels; those of one line of code that are alike together."""
    alike: dict[tuple[tuple[int, ...], str], float] = defaultdict(float)
    for each in filter(lambda x: x.launches, repetitions):
        alike[each.trips, each.line] += each.total
    largest = sorted(alike.items(), key=lambda item: -item[1])[:LOOPS]
    for (trips, line), total in largest:
        factors = " x ".join(f"{n:,.0f}" for n in (*trips, total / math.prod(trips)))
        yield _field("", f"{factors} of these in a loop, {_place(line)}")


def _flops_text(flops: float) -> str:
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP"):
        if flops < 1000:
            return f"{flops:.3g} {unit}"
        flops /= 1000
    return f"{_rounded(flops) if flops >= 100 else f'{flops:.3g}'} TFLOP"


def _rounded(value: float) -> str:
    """Return a number with three significant digits and without an exponent."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _collectives(plan: Plan) -> str:
    whole = plan.whole.work
    if not whole.collectives:
        return "no collectives"
    size = size_text(whole.collective_bytes)
    return f"{whole.collectives:,.0f} collectives with {size} per update"


def speed_text(plan: Plan) -> str:
    """Return the forecast of rows per second, and what bounds it."""
    found = forecast(plan)
    shares = ", ".join(
        f"{name} {100 * part / found.seconds:.0f} %"
        for name, part in found.parts.items()
        if name != "transfers" or plan.devices > 1
    )
    return f"about {_rounded(found.rows_per_second)} rows/s, an estimate ({shares})"


def _place(line: str) -> str:
    """Return a file and line; that of a file of jmarl is relative to its root."""
    return line.removeprefix(f"{Path(__file__).parents[2]}/")


def sweep_text(plans: Sequence[Plan]) -> str:
    """Return a table with a row for each number of environments."""
    rows = []
    for plan in plans:
        found = forecast(plan)
        rows.append(
            (
                f"{plan.config.num_envs}",
                size_text(plan.needed),
                "yes" if plan.fits else "no",
                f"{plan.step.work.launches:,.0f}",
                f"{plan.update.work.launches:,.0f}",
                _rounded(found.rows_per_second),
                found.bound,
            )
        )
    return markdown(SWEEP, rows)
