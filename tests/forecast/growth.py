"""Kernels and memory of two programs on two targets, recorded so that their growth is noticed.

python -m tests.forecast.growth    # writes growth.json again
"""

import json
import pathlib

import jax

from jmarl.forecast import kernels
from jmarl.forecast.compile_plan import compile_lowered
from jmarl.forecast.described import described_programs, load_config_for
from jmarl.forecast.hlo import parse
from jmarl.forecast.targets import find_target
from jmarl.training.programs import trace_chunk


RECORD = pathlib.Path(__file__).with_name("growth.json")
TARGETS = {"h100": "jax_plugins.xla_cuda12", "v5e": "libtpu"}
SYSTEMS = ("mappo", "mam_ppo")
SIZES = ("env=smax_3m", "num_envs=32", "rollout_length=8")
LIMIT = 1.05
ARRAYS = 20
"""Largest arrays that are recorded."""


def counts(system, name):
    """Compile the program that trains; return its launches by file, megabytes, and arrays."""
    target = find_target(name)
    config = load_config_for(target, system, SIZES)
    with described_programs(config, target) as (programs, shapes, _):
        compiled = compile_lowered(trace_chunk(programs, shapes).lower())
    module = parse(compiled.as_text())
    files = {}
    for file, count in kernels.launches_by_file(module).items():
        files[short(file)] = files.get(short(file), 0) + round(count)
    temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
    arrays = kernels.largest_arrays(module, ARRAYS)
    return {
        "kernels": dict(sorted(files.items())),
        "temporary_mb": round(temporary, 3),
        "arrays": [
            f"{kind} of {short(line.partition(':')[0])}" for _, kind, line in arrays
        ],
    }


def short(file):
    """Return the path of a file in this repository, or one name for all others."""
    root = f"{pathlib.Path(__file__).parents[2]}/"
    inside = file.startswith(root) and ".venv" not in file
    return file.removeprefix(root) if inside else "libraries"


def growth(before, after):
    """Return a line for each figure that has grown by more than the limit."""
    lines = []
    old, new = (sum(x["kernels"].values()) for x in (before, after))
    if new > LIMIT * old:
        more = {
            file: count - before["kernels"].get(file, 0)
            for file, count in after["kernels"].items()
        }
        culprit = max(more, key=more.get)
        lines.append(f"{old} -> {new} kernels, most of them new in {culprit}")
    old, new = before["temporary_mb"], after["temporary_mb"]
    if new > LIMIT * old:
        added = [x for x in after["arrays"] if x not in before["arrays"]]
        culprit = f"the largest new array is {added[0]}" if added else "no new array"
        lines.append(f"{old} -> {new} MB of temporary memory; {culprit}")
    return lines


def main():
    """Compile all programs and write the record."""
    jax.config.update("jax_platforms", "cpu")  # the targets are described, not used
    record = {
        name: {system: counts(system, name) for system in SYSTEMS} for name in TARGETS
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
