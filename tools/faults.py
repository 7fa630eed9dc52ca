"""Run the tests of the twenty faults, and print the result for each fault.

    python -m tools.faults [--slow] [argument of pytest ...]

The marker ``fault`` assigns a test to a fault. The promise for a fault is held if at least one of
its tests ran and none failed. The exit code is 1 unless all promises are held and pytest succeeds.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple


class Fault(NamedTuple):
    """A fault, and the promise that must hold when it occurs."""

    name: str
    promise: str


FAULTS = {
    1: Fault("interruption", "a resumed run equals an uninterrupted one, bit for bit"),
    2: Fault("SIGKILL while saving", "the previous checkpoint is resumed, exactly"),
    3: Fault(
        "truncated checkpoint", "named; previous one restored, or one line and exit 2"
    ),
    4: Fault("flipped bit", "the digest detects it; the previous one is restored"),
    5: Fault("full disk", "a warning, or one line and exit 3; true status"),
    6: Fault("logger fails", "training unaffected; metrics.jsonl complete"),
    7: Fault("signals", "saved, exit 75, exact resume; a second one ends at once"),
    8: Fault("numbers not finite", "named with update and path; never saved as good"),
    9: Fault("unknown key", "one line with the nearest key; exit 2"),
    10: Fault(
        "invalid value", "one line with key, value, rule; exit 2, no compilation"
    ),
    11: Fault("unknown environment", "one line with the nearest name or extra; exit 2"),
    12: Fault(
        "unfit checkpoint", "differences named, exit 2; warning of other versions"
    ),
    13: Fault("out of memory", "one line with a size that fits; exit 3"),
    14: Fault("nondeterminism", "equal seeds give equal results in other processes"),
    15: Fault("seeds mixed", "a seed gives the same alone and among others (1e-4)"),
    16: Fault("moved run folder", "resume, evaluate, render work; no absolute paths"),
    17: Fault("two writers", "the second ends with one line and exit 2"),
    18: Fault("unusable folder", "one line and exit 2; spaces and UTF-8 work"),
    19: Fault("process dies", "one process only: exact on its devices, close on fewer"),
    20: Fault("rows mixed up", "memory and returns stay with their own agent"),
}
"""The faults of a run, by number."""


class Case(NamedTuple):
    """One test of a run of pytest."""

    faults: list[int]
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float


class Row(NamedTuple):
    """Result of all tests of a fault."""

    number: int
    tests: int
    result: str
    seconds: float


def read_cases(report: str) -> Iterator[Case]:
    """Yield the tests of a report in the format of JUnit."""
    for case in ET.fromstring(report).iter("testcase"):
        properties = case.iter("property")
        faults = [
            int(p.attrib["value"]) for p in properties if p.get("name") == "fault"
        ]
        yield Case(faults, outcome_of(case), float(case.get("time", 0)))


def outcome_of(case: ET.Element) -> str:
    """Return the outcome of a test. A defective twin that fails as expected passes."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is not None and skipped.get("type") != "pytest.xfail":
        return "skipped"
    return "passed"


def summarize(cases: list[Case]) -> list[Row]:
    """Return one row for each fault."""
    return [
        summarize_fault(number, [case for case in cases if number in case.faults])
        for number in FAULTS
    ]


def summarize_fault(number: int, cases: list[Case]) -> Row:
    """Return the row of one fault."""
    outcomes = {case.outcome for case in cases}
    if "failed" in outcomes:
        result = "BROKEN"
    elif "passed" in outcomes:
        result = "held"
    else:
        result = "skipped" if cases else "no test"
    return Row(number, len(cases), result, sum(case.seconds for case in cases))


def table(rows: list[Row]) -> str:
    """Return the rows as text, with name and promise of each fault."""
    shape = "{:>2}  {:<21} {:<57} {:>5}  {:<7} {:>8}"
    head = shape.format("", "fault", "promise", "tests", "result", "seconds")
    lines = [
        shape.format(number, *FAULTS[number], tests, result, f"{seconds:.1f}")
        for number, tests, result, seconds in rows
    ]
    return "\n".join([head, *lines])


def run_tests(arguments: list[str]) -> tuple[int, list[Case]]:
    """Run pytest on the tests of all faults; return its exit code and the tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}"]
        code = subprocess.run([*command, *arguments]).returncode
        cases = list(read_cases(report.read_text())) if report.exists() else []
    return code, cases


def main(arguments: list[str]) -> int:
    """Run the tests and print the table; return the exit code."""
    slow = "--slow" in arguments
    rest = [argument for argument in arguments if argument != "--slow"]
    start = time.monotonic()
    code, cases = run_tests(["-m", "fault" if slow else "fault and not slow", *rest])
    rows = summarize(cases)
    held = sum(row.result == "held" for row in rows)
    print(f"\n{table(rows)}")
    seconds = time.monotonic() - start
    print(f"{held} of {len(FAULTS)} faults held, {len(cases)} tests in {seconds:.0f} s")
    return int(code != 0 or held < len(FAULTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
