"""Parts of the calibration: how each is measured, and whether its bands hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.football_calibration import contest_laws, kick_laws, motion_laws
from benchmarks.football_calibration.forecasts import forecast_laws, opening_laws
from benchmarks.football_calibration.motion_laws import Figures
from benchmarks.football_calibration.records import load_json
from benchmarks.football_calibration.script_laws import script_laws
from benchmarks.support.common import Row


LAWS: dict[str, Callable[[int], Figures]] = {
    "run": motion_laws.run_laws,
    "turn": motion_laws.turn_laws,
    "dribble": motion_laws.dribble_laws,
    "kick": kick_laws.kick_laws,
    "flight": kick_laws.flight_laws,
    "pass": kick_laws.pass_laws,
    "shot": contest_laws.shot_laws,
    "keeper": contest_laws.keeper_laws,
    "duel": contest_laws.duel_laws,
    "opening": opening_laws,
}
"""Functions from the number of seeds to the figures of a part."""
TABLES: dict[str, tuple[str, Callable[[int], tuple[Figures, list[Row]]]]] = {
    "forecast": ("seeds", forecast_laws),
    "script": ("episodes", script_laws),
}
"""Argument and function of the parts that print a table besides."""


def measure(
    part: str,
    args: dict[str, Any],
) -> tuple[Figures, list[Row]]:
    """Return the figures of a part, and its table, which may be empty."""
    if part in LAWS:
        return LAWS[part](args["seeds"]), []
    argument, laws = TABLES[part]
    return laws(args[argument])


def judge(figures: Figures) -> list[Row]:
    """Return a row for each figure: measured, engine, band, held."""
    bands = {band["law"]: band for band in load_json("bands")["bands"]}
    return [judge_law(bands[law], float(value)) for law, value in figures.items()]


def judge_law(band: Row, value: float) -> Row:
    """Return the row of a law."""
    low, high, engine = band["low"], band["high"], band["engine"]
    return {
        "law": band["law"],
        "measured": value,
        "engine": "-" if engine is None else float(engine),
        "band": f"{low:.3g} to {high:.3g}",
        "held": "yes" if low <= value <= high else "NO",
    }
