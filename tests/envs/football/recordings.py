"""Recorded episodes of the real engine, for tests of scripts, replays and the physics."""

from benchmarks.football_calibration.records import (
    DATA,
    SCENARIOS,
    load_json,
    load_recordings,
    split_name,
)


__all__ = ["DATA", "SCENARIOS", "load_json", "load_recordings", "split_name"]
