"""Rates that ``python -m benchmarks.accelerators calibrate=true`` has measured on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jmarl.results.files import read_json


FOLDER = Path(__file__).with_name("calibrations")
"""Folder of the records, one for each device that has been measured."""


class Calibration(NamedTuple):
    """Measured rates of a device, which replace those of its data sheet in forecasts."""

    launch_s: float
    """Seconds of a kernel that does next to nothing."""
    bandwidth: float
    """Bytes per second that a large kernel reads and writes."""
    flops: dict[str, float]
    """Floating-point operations per second of a large matrix product, by precision."""
    ratios: tuple[float, ...]
    """Rows per second that programs of training reached, over their forecast."""
    source: str
    """Date, commit and device of the measurement."""


def calibration_file(device: str) -> Path:
    """Return the path of the record of a device of ``targets.yaml``."""
    return FOLDER / f"{device}.json"


def find_calibration(device: str) -> Calibration | None:
    """Return the measured rates of a device of ``targets.yaml``; None if there are none."""
    path = calibration_file(device)
    return from_record(read_json(path)) if path.exists() else None


def from_record(record: dict[str, Any]) -> Calibration:
    """Return the measured rates of a record of the benchmark."""
    rates, where = record["rates"], record["environment"]
    date, commit = where["time"].partition("T")[0], where["commit"][:7]
    return Calibration(
        launch_s=1e-6 * rates["launch_us"],
        bandwidth=rates["bandwidth"],
        flops=rates["flops"],
        ratios=tuple(row["measured / forecast"] for row in record["rows"]),
        source=f"measured on {where['device']}, {date}, commit {commit}",
    )
