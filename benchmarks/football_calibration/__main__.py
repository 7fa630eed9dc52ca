"""Football beside measurements of Google Research Football's engine.

    python -m benchmarks.football_calibration [parts=run,turn,...] [seeds=32] [episodes=512]
        [out=results/football_calibration.json]

Options:

* ``parts``: parts to measure, of ``run``, ``turn``, ``dribble``, ``kick``, ``flight``, ``pass``,
  ``shot``, ``keeper``, ``duel``, ``opening``, ``forecast``, ``script``.
* ``seeds``: random seeds of each cell.
* ``episodes``: episodes for each scenario and script of ``script``.
* ``out``: JSON file of the record; none by default.

Method: the set-ups in which the engine was measured are built as scenarios and played with the same
buttons. The engine's motion was recorded at 100 Hz; its figures are taken from every tenth row, by
the functions that measure the simulator. Figures between two steps are interpolated. The start of
``duel`` is inferred, because the engine's record lacks it; so is the press of a moving kicker.
Programs that run once are compiled with little optimization.

``opening`` plays the recorded actions from the start, at all seeds. ``forecast`` continues each
recorded frame with the recorded actions for a second. ``script`` plays the scripts and compares
their results with 200 episodes of the engine each.

Bands are in ``tests/envs/football/data/bands.json``, with the way in which each was sized.

Output: a line for each law with the measured figure, the engine's, the band, and whether it holds;
tables of ``forecast`` and ``script``.

Exit codes: 0 if all bands hold, 1 if not, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from benchmarks.football_calibration.parts import LAWS, TABLES, judge, measure
from benchmarks.support.common import parse_arguments, show, write_json
from jmarl.cli.process import exit_code
from jmarl.config import check


DEFAULTS: dict[str, Any] = {
    "parts": (
        "run",
        "turn",
        "dribble",
        "kick",
        "flight",
        "pass",
        "shot",
        "keeper",
        "duel",
        "opening",
        "forecast",
        "script",
    ),
    "seeds": 32,
    "episodes": 512,
    "out": "",
}
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""Flags of XLA for programs that run once. The episodes of ``script`` take longer with them."""


def main() -> int:
    """Measure all parts, print a line for each law, and write the record."""
    args = parse_arguments(DEFAULTS)
    names = (*LAWS, *TABLES)
    for part in args["parts"]:
        check(part in names, "parts", part, f"must be one of {', '.join(names)}")
    if "script" not in args["parts"]:
        # XLA reads the flags when the first array is made.
        os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    rows, tables = [], {}
    for part in args["parts"]:
        figures, tables[part] = measure(part, args)
        found = judge(figures)
        rows += found
        show(found)
        show(tables[part])
    failed = [row["law"] for row in rows if row["held"] != "yes"]
    print(f"{len(rows) - len(failed)} of {len(rows)} bands hold")
    if args["out"]:
        write_json(
            args["out"],
            {"arguments": args, "laws": rows, "tables": tables},
        )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(exit_code(main))
