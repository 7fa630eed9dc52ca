"""Football: the bands around measurements of the real engine hold."""

import numpy as np
import pytest

from benchmarks.football_calibration.frames import all_frames, in_play, kicks
from benchmarks.football_calibration.measures import (
    first_below,
    first_true,
    launches,
    recovery_time,
)
from benchmarks.football_calibration.parts import judge, measure
from benchmarks.football_calibration.records import (
    DATA,
    load_json,
    load_recordings,
    split_name,
)
from benchmarks.football_calibration.script_laws import rank_correlation


ARGUMENTS = {"seeds": 32, "episodes": 512}
PREFIXES = {
    "run": ("run.", "release."),
    "kick": ("kick.", "shot.empty."),
    "shot": ("shot.keeper.",),
}
PARTS = (
    "run",
    "turn",
    "dribble",
    "kick",
    "flight",
    "pass",
    "shot",
    "keeper",
)
SLOW_PARTS = ("duel", "opening", "forecast", "script")


def laws_of(part):
    prefixes = PREFIXES.get(part, (f"{part}.",))
    return {
        b["law"] for b in load_json("bands")["bands"] if b["law"].startswith(prefixes)
    }


@pytest.mark.parametrize(
    "part",
    [
        *PARTS,
        *(pytest.param(part, marks=pytest.mark.slow) for part in SLOW_PARTS),
    ],
)
def test_the_bands_hold(part):
    rows = judge(measure(part, ARGUMENTS)[0])
    assert {row["law"] for row in rows} == laws_of(part)
    failed = [
        f"{r['law']}: {r['measured']:.3g}, not {r['band']}"
        for r in rows
        if r["held"] != "yes"
    ]
    assert not failed, "\n".join(failed)


def test_every_band_belongs_to_a_part_and_contains_the_engine():
    bands = load_json("bands")
    laws = [band["law"] for band in bands["bands"]]
    assert len(laws) == len(set(laws))
    assert set(laws) == set().union(*(laws_of(part) for part in (*PARTS, *SLOW_PARTS)))
    for band in bands["bands"]:
        assert band["sized"] in bands["sizes"]
        assert band["low"] <= band["high"]
        if band["engine"] is not None:
            assert band["low"] <= band["engine"] <= band["high"]


def test_the_measurements_are_small():
    assert sum(file.stat().st_size for file in DATA.rglob("*")) < 1e6


def test_recordings_have_the_shapes_of_their_teams():
    records = load_recordings()
    assert len(records) == 40
    for name, record in records.items():
        rows = len(record["actions"]) + 1
        assert all(len(record[key]) == rows for key in record if key != "actions")
        n_agents = 2 if split_name(name)[0] == "pass_and_shoot_with_keeper" else 1
        assert record["left"].shape == (rows, n_agents + 1, 2)
        assert rows - 1 <= in_play(record) <= rows


def test_frames_are_free_of_kicks():
    records = load_recordings()
    frames = all_frames()
    assert len(frames) > 2000
    for name, row in frames:
        assert not kicks(records[name])[max(0, row - 6) : row + 10].any()


def test_crossings_are_interpolated():
    values = np.asarray([[4.0, 1.0, 3.0], [2.0, 1.0, 3.0], [0.0, 1.0, 3.0]])
    np.testing.assert_allclose(
        first_below(values, 1.0),
        [0.15, 0.0, np.nan],
    )
    np.testing.assert_allclose(
        first_true(values < 3),
        [1, 0, np.nan],
    )


def test_a_recovery_starts_at_the_lowest_speed():
    speed = np.asarray([10.0, 5.0, 2.0, 6.0, 8.0, 10.0])[:, None]
    np.testing.assert_allclose(recovery_time(speed), [0.45])


def test_a_launch_between_two_rows_is_found():
    # Launched 0.13 s after the press at 20 m/s, and braked by 5 m/s^2.
    since = np.clip(
        np.arange(6) * 0.1 - 0.13,
        0.0,
        None,
    )
    ball = np.zeros((6, 1, 3))
    velocity = np.zeros((6, 1, 3))
    ball[:, 0, 0] = 20 * since - 2.5 * since**2
    velocity[:, 0, 0] = np.where(
        since > 0,
        20 - 5 * since,
        0.0,
    )
    delay, launch = launches(ball, velocity, 0)
    np.testing.assert_allclose(delay, 0.13, atol=2e-3)
    np.testing.assert_allclose(
        launch[0],
        [20.0, 0.0, 0.0],
        atol=0.02,
    )


def test_bands_of_counts_are_wilson_intervals():
    for band in load_json("bands")["bands"]:
        if band["sized"] == "Wilson":
            low, high = wilson(band["engine"], band["n"])
            assert band["low"] == pytest.approx(
                low if low > 0.05 else 0,
                abs=1e-4,
            )
            assert band["high"] == pytest.approx(
                high if high < 0.95 else 1,
                abs=1e-4,
            )


def wilson(share, n, z=1.96):
    middle = share + z**2 / (2 * n)
    variance = share * (1 - share) / n + z**2 / (4 * n**2)
    half = z * variance**0.5
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def test_equal_values_share_their_rank():
    a = np.asarray([0.0, 0.0, 1.0, 2.0])
    assert rank_correlation(a, np.asarray([1.0, 1.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
