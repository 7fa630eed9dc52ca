"""The record of programs for accelerators, with plans that are not compiled."""

import json
import subprocess

import pytest

from benchmarks.accelerators import __main__ as accelerators
from benchmarks.support import common


PLAN = {"fits": True, "memory_mb": 1.5, "step_kernels": 7}


@pytest.mark.parametrize(
    ("code", "out", "error", "expected"),
    [
        (0, json.dumps(PLAN), "", PLAN),
        (3, json.dumps(PLAN | {"fits": False}), "", PLAN | {"fits": False}),
        (
            3,
            "",
            "error: needs too much",
            {"fits": False, "error": "error: needs too much"},
        ),
        (1, "", "Traceback\nKeyError: 'x'", {"fits": False, "error": "KeyError: 'x'"}),
    ],
)
def test_a_row_has_the_plan_or_the_error(monkeypatch, code, out, error, expected):
    def run(command, **_):
        assert command[3:] == ["plan", "vdn", "target=h100", "env=smax_3m", "json=true"]
        return subprocess.CompletedProcess(command, code, out, error)

    monkeypatch.setattr(subprocess, "run", run)
    row = accelerators.compile_one("vdn", "h100", "smax_3m")
    names = {"system": "vdn", "target": "h100", "env": "smax_3m"}
    assert row == names | {"commit": common.COMMIT} | expected


def test_continuous_actions_are_for_systems_that_have_them():
    args = accelerators.DEFAULTS | {"systems": ("qmix", "ippo"), "targets": ("h100",)}
    names = [(system, env) for system, _, env in accelerators.programs(args)]
    assert names == [
        ("qmix", "smax_10v10"),
        ("ippo", "smax_10v10"),
        ("ippo", "mpe_spread"),
    ]


def test_known_rows_are_kept_with_their_commit_unless_named_again(tmp_path):
    path = tmp_path / "record.json"
    rows = [{"system": name, "commit": "other"} for name in ("vdn", "qmix")]
    path.write_text(json.dumps({"environment": {"commit": "other"}, "rows": rows}))
    assert accelerators.known_rows(str(path), ()) == rows
    assert accelerators.known_rows(str(path), ["qmix"]) == rows[:1]
    assert accelerators.known_rows("", ()) == []
