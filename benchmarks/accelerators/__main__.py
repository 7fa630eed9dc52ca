"""Programs of all systems, compiled for accelerators that are not there.

    python -m benchmarks.accelerators [systems=...] [targets=h100,v5e] [envs=smax_10v10,mpe_spread]
        [out=results/accelerators.json] [again=...]
    python -m benchmarks.accelerators calibrate=true

Options:

* ``systems``: systems to compile; by default those of ``jmarl systems``.
* ``targets``: devices, see ``jmarl plan``.
* ``envs``: environments. Only systems for continuous actions are compiled on ``mpe_spread``.
* ``out``: JSON file of the record, written after each program; none by default. Programs that it
  has are not compiled again. Each names the commit at which it was compiled.
* ``again``: systems that are compiled again, because a commit changed their programs.
* ``calibrate``: measure the GPU or TPU of this machine instead, see below.

Method: ``jmarl plan`` at the default sizes of the target's platform. Kernels, bytes and operations
are counted, not measured. The speed is a forecast, from measured rates if the device has a
calibration. Each program is compiled in a process of its own, and seconds are wall time.

``calibrate=true`` measures the first device of this machine: the time of a small kernel, the
bandwidth, and the rate of large matrix products. Five programs of training are then timed beside
their forecasts from these rates. XLA compiles them on the device, so they have its tuned matrix
products, and those of a plan do not. The record is ``jmarl/forecast/calibrations/<device>.json``.
``jmarl plan`` then uses the measured rates for this device, and prints how far the forecasts of the
five programs were off. With ``out``, the record is written elsewhere and has no effect.

Output: a table with memory, kernels for each step of all environments and for the rest of an
update, and the forecast; with ``calibrate=true``, the rates, and the speed of the five programs.

Exit codes: 0 if all programs compile and fit, 1 if one does not, 2 if an argument is unknown, or
if the device cannot be calibrated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.accelerators.calibrate import calibrate
from benchmarks.support.common import (
    COMMIT,
    Row,
    parse_arguments,
    show,
    write_json,
)
from jmarl.cli.process import exit_code
from jmarl.config import check
from jmarl.config.choices import systems
from jmarl.results.files import read_json
from jmarl.runs.exit_codes import ExitCode


DEFAULTS: dict[str, Any] = {
    "systems": tuple(systems()),
    "targets": ("h100", "v5e"),
    "envs": ("smax_10v10", "mpe_spread"),
    "out": "",
    "again": (),
    "calibrate": False,
}
SPREAD = "mpe_spread"
CONTINUOUS = (
    "ippo",
    "mappo",
    "happo",
    "shppo",
    "mat_ppo",
    "mam_ppo",
    "rec_mam",
    "sable",
    "rec_sable",
)
"""Systems for continuous actions."""
NAMES = ("system", "target", "env")
SHOWN = (
    *NAMES,
    "fits",
    "memory_mb",
    "step_kernels",
    "update_kernels",
    "rows_per_second",
    "bound",
    "compile_s",
)


def main() -> int:
    """Compile, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    if args.pop("calibrate"):
        others = [key for key in args if key != "out" and args[key] != DEFAULTS[key]]
        check(not others, "calibrate", True, f"takes no {', '.join(others)}; only out")
        print(f"record: {calibrate(args['out'])}")
        return 0
    rows = known_rows(args["out"], args["again"])
    done = {tuple(row[key] for key in NAMES) for row in rows}
    for names in programs(args):
        if names not in done:
            rows.append(compile_one(*names))
            if args["out"]:
                write_json(args["out"], {"arguments": args, "rows": rows})
    show({key: row.get(key) for key in SHOWN} for row in rows)
    return 0 if all(row["fits"] for row in rows) else 1


def programs(args: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield system, target and environment of each program."""
    for target, env, system in product(args["targets"], args["envs"], args["systems"]):
        if env != SPREAD or system in CONTINUOUS:
            yield system, target, env


def known_rows(out: str, again: Sequence[str]) -> list[Row]:
    """Return the rows of an earlier record that are kept."""
    record = read_json(Path(out)) if out else {}
    return [row for row in record.get("rows", ()) if row["system"] not in again]


def compile_one(system: str, target: str, env: str) -> Row:
    """Plan a system in a process of its own; return its counts, or the error."""
    command = [sys.executable, "-m", "jmarl", "plan", system, f"target={target}"]
    command += [f"env={env}", "json=true"]
    done = subprocess.run(command, capture_output=True, text=True)
    names = dict(zip(NAMES, (system, target, env), strict=True)) | {"commit": COMMIT}
    # XLA refuses some programs that do not fit, so there is nothing to count.
    planned = done.returncode in (ExitCode.FINISHED, ExitCode.RESOURCE)
    if not (planned and done.stdout):
        lines = done.stderr.strip().splitlines() or ["no message"]
        return names | {"fits": False, "error": lines[-1]}
    return names | json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(exit_code(main))
