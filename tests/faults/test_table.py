"""The table of ``make faults`` tells the truth about the tests that ran."""

import pathlib
import re

import pytest

from tools import faults


TESTS = pathlib.Path(__file__).parents[1]
MARK = re.compile(r"mark\.fault\(([\d, ]+)\)")


def marked() -> set[int]:
    """Return the numbers of all faults that have a test."""
    files = set(TESTS.rglob("test_*.py")) - {pathlib.Path(__file__)}
    texts = [file.read_text() for file in files]
    lists = [numbers for text in texts for numbers in MARK.findall(text)]
    return {int(number) for numbers in lists for number in numbers.split(",")}


def test_every_fault_has_tests_and_every_mark_has_a_fault():
    assert marked() == faults.FAULTS.keys() == set(range(1, 21))


EXAMPLE = """
import pytest

@pytest.mark.fault(1)
def test_passes(): pass

@pytest.mark.fault(1, 2)
def test_passes_for_two(): pass

@pytest.mark.fault(2)
def test_fails(): assert 1 == 2

@pytest.mark.fault(3)
@pytest.mark.xfail(strict=True, raises=AssertionError)
def test_defective_twin(): assert False

@pytest.mark.fault(4)
@pytest.mark.xfail(strict=True, raises=AssertionError)
def test_twin_that_passes(): pass

@pytest.mark.fault(5)
def test_skipped(): pytest.skip("needs root")

@pytest.fixture
def broken(): raise OSError("no fixture")

@pytest.mark.fault(6)
def test_error(broken): pass

@pytest.mark.slow
@pytest.mark.fault(7)
def test_slow(): pass

def test_of_no_fault(): assert False
"""


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Make a folder with tests of some faults the current one."""
    markers = "[pytest]\nmarkers =\n    slow: slow\n    fault: number\n"
    (tmp_path / "pytest.ini").write_text(markers)
    conftest = (TESTS / "conftest.py").read_text()
    hook = conftest[conftest.index("def pytest_collection_modifyitems") :]
    (tmp_path / "conftest.py").write_text(hook)
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("example")
def test_results_are_those_of_the_tests(capfd):
    assert faults.main(["-p", "no:cacheprovider"]) == 1
    lines = capfd.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    fault "))
    words = ("held", "BROKEN", "skipped", "no test")
    results = [
        next(word for word in words if f" {word} " in line)
        for line in lines[start + 1 : start + 21]
    ]
    shown = ["held", "BROKEN", "held", "BROKEN", "skipped", "BROKEN", "no test"]
    assert results == shown + ["no test"] * 13
    assert lines[-1].startswith("2 of 20 faults held, 7 tests in ")


@pytest.mark.usefixtures("example")
def test_slow_tests_run_on_request(capfd):
    assert faults.main(["--slow", "-p", "no:cacheprovider"]) == 1
    assert "3 of 20 faults held, 8 tests in " in capfd.readouterr().out


def test_the_table_has_a_row_for_each_fault_and_fits_the_page():
    cases = [faults.Case([number], "passed", 1.0) for number in faults.FAULTS]
    lines = faults.table(faults.summarize(cases)).splitlines()
    assert len(lines) == 21
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 110


def test_all_held_is_success(monkeypatch, capsys):
    cases = [faults.Case([number], "passed", 1.0) for number in faults.FAULTS]
    monkeypatch.setattr(faults, "run_tests", lambda arguments: (0, cases))
    assert faults.main([]) == 0
    assert "20 of 20 faults held" in capsys.readouterr().out
    monkeypatch.setattr(faults, "run_tests", lambda arguments: (1, cases))
    assert faults.main([]) == 1
