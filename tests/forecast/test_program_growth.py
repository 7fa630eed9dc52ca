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
    before = {"kernels": {"a.py": 90, "b.py": 10}, "temporary_mb": 10.0}
    same = {"kernels": {"a.py": 91, "b.py": 12}, "temporary_mb": 10.4}
    assert growth(before, same) == []
    more = {"kernels": {"a.py": 89, "b.py": 12, "c.py": 9}, "temporary_mb": 11.0}
    assert growth(before, more) == [
        "100 -> 110 kernels, most of them new in c.py",
        "10.0 -> 11.0 MB of temporary memory",
    ]
