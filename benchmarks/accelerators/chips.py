"""Forecast the speed of training on 1 to 256 devices.

    python -m benchmarks.accelerators.chips [targets=h100,v5e] [systems=mappo,mam_ppo]
        [env=smax_10v10] [most=256] [out=results/chips.json]

Options:

* ``targets``: devices, see ``jmarl plan``.
* ``systems``, ``env``: programs of training, without a replay buffer.
* ``most``: largest number of devices, a power of two.
* ``out``: JSON file of the record; none by default.

Method: each device trains the environments of the target's preset, so the batch grows with the
devices. The number of minibatches is that of one device, so the gradient steps of an update do not
grow. With the default, ``system.minibatch_rows``, they would. A program is compiled for one device
and for eight, and its collectives are counted. More devices have the collectives of eight, whose
time grows with the number of devices, by the links in ``jmarl/forecast/targets.yaml``. The effect
of the larger batch on learning is not considered.

Output: rows of experience per second, and the share of ideal scaling. Nothing is measured.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import jax

from benchmarks.support.common import Row, parse_arguments, show_and_record
from jmarl.cli.process import exit_code
from jmarl.config import check
from jmarl.forecast.compile_plan import Plan, forecast, plan_run
from jmarl.forecast.described import load_config_for
from jmarl.forecast.targets import find_target


DEFAULTS: dict[str, Any] = {
    "targets": ("h100", "v5e"),
    "systems": ("mappo", "mam_ppo"),
    "env": "smax_10v10",
    "most": 256,
    "out": "",
}
EIGHT = {"gpu": "8", "tpu": "2x4"}
"""Size of a target of eight devices by its platform."""


def main() -> int:
    """Compile, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    most = args["most"]
    rule = "must be a power of two, such as 64"
    check(most > 0 and most & (most - 1) == 0, "most", most, rule)
    jax.config.update("jax_platforms", "cpu")  # the targets are described, not used
    show_and_record(args, forecasts(args))
    return 0


def forecasts(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the forecast of each system, target and number of devices."""
    for device, system in product(args["targets"], args["systems"]):
        one, eight = compiled_plans(system, args["env"], device)
        single = forecast(one).rows_per_second
        devices = 1
        while devices <= args["most"]:
            plan = one if devices == 1 else eight
            found = forecast(plan, devices)
            yield {
                "system": system,
                "env": args["env"],
                "device": device,
                "devices": devices,
                "environments": devices * one.config.num_envs,
                "rows/s": found.rows_per_second,
                "share of ideal": found.rows_per_second / (devices * single),
                "transfers": found.transfers / found.seconds,
                "collectives": plan.whole.work.collectives,
                "collective MB": plan.whole.work.collective_bytes / 1e6,
            }
            devices *= 2


def compiled_plans(system: str, env: str, device: str) -> tuple[Plan, Plan]:
    """Plan a run for one device, and eight times as many environments for eight.

    Raises:
        ConfigError: If the system learns from a replay buffer.
    """
    target = find_target(device)
    eight = find_target(f"{device}:{EIGHT[target.platform]}")
    config = load_config_for(target, system, [f"env={env}"])
    minibatches = config.system.num_minibatches
    rule = "must learn from the minibatches of a rollout, not from a replay buffer"
    check(minibatches is not None, "systems", system, rule)

    def sizes(devices: int) -> list[str]:
        grown = f"num_envs={devices * config.num_envs}"
        return [f"env={env}", f"system.minibatches={minibatches}", grown]

    return plan_run(system, sizes(1), target), plan_run(system, sizes(8), eight)


if __name__ == "__main__":
    sys.exit(exit_code(main))
