"""Programs for accelerators do not grow unnoticed."""

import importlib.util
import json

import pytest

from tests.forecast.growth import RECORD, SYSTEMS, TARGETS, counts, growth


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_and_memory_have_not_grown(target, system):
    """After a change for the better, ``python -m tests.forecast.growth`` lowers the limits."""
    if importlib.util.find_spec(TARGETS[target].partition(".")[0]) is None:
        pytest.skip("needs the compilers of make plan-tools")
    before = json.loads(RECORD.read_text())[target][system]
    assert growth(before, counts(system, target)) == []


def test_growth_names_its_culprit():
    old = "f32[4] of a.py"
    before = measured({"a.py": 90, "b.py": 10}, 10.0, [old])
    assert growth(before, measured({"a.py": 91, "b.py": 12}, 10.4, ["f32[8]"])) == []
    kernels = {"a.py": 89, "b.py": 12, "c.py": 9}
    assert growth(before, measured(kernels, 11.0, [old, "f32[9] of c.py"])) == [
        "100 -> 110 kernels, most of them new in c.py",
        "10.0 -> 11.0 MB of temporary memory; the largest new array is f32[9] of c.py",
    ]
    assert growth(before, measured({}, 11.0, [old])) == [
        "10.0 -> 11.0 MB of temporary memory; no new array"
    ]


def measured(kernels, megabytes, arrays):
    return {"kernels": kernels, "temporary_mb": megabytes, "arrays": arrays}
