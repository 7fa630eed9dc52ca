"""Tables of zero-shot grids, from their records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jmarl.results.zero_shot import LEVEL, Estimate


NAMES = {"won": "win rate", "return": "return"}
"""Names of the metrics that score an episode."""
NOTES = (
    "Means over seeds with 95 % intervals (Student's t), clipped to the possible values.",
    "The variance over seeds is at least that of their finite numbers of episodes.",
    "Retention: mean {score} divided by that in the training environment (*).",
)
TEST_NOTES = (
    "Difference from {first}: Welch's t-test over seeds, p by Holm's method over all {n} tests.",
    f"No difference: the intervals of both runs overlap, or p is at least {LEVEL}.",
)


def grid_table(record: dict[str, Any]) -> str:
    """Format the record of a grid: runs, one row per environment and run, and explanations."""
    return "\n".join([*heading(record), *_align(grid_rows(record)), *notes(record)])


def grid_rows(record: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the table of a grid; its header is the first row."""
    score = NAMES[record["metric"]]
    header = ["", "environment", "run", score, "retention"]
    tests = {(test["env"], test["run"]): test for test in record["comparisons"]}
    if tests:
        header.append("difference")
    return [header, *_rows(record, tests)]


def notes(record: dict[str, Any]) -> list[str]:
    """Return the explanations of the intervals and tests of a record."""
    tests = [test for test in record["comparisons"] if test["p"] is not None]
    texts = NOTES + TEST_NOTES * bool(record["comparisons"])
    first, score = next(iter(record["runs"])), NAMES[record["metric"]]
    return [text.format(first=first, n=len(tests), score=score) for text in texts]


def heading(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines above the table: the grid, its runs and the number of episodes."""
    yield f"{record['grid']}: {record['title']}"
    for label, run in record["runs"].items():
        updates = ", ".join(map(str, run["training"]["update"]))
        envs = ", ".join(run["trained_on"])
        about = f"{record['parameters']} parameters (of update {updates})"
        yield f"  {label}: {run['system']} trained on {envs}, {about}"
    yield f"{record['episodes']} {record['mode']} episodes per seed and environment:"


def _rows(record: dict[str, Any], tests: dict[Any, Any]) -> Iterator[list[str]]:
    """Yield the cells of each row. Training environments outside the grid come first."""
    for label, run in record["runs"].items():
        if not run["training"]["cell"]:
            env = run["training"]["env"]
            yield _row("*", env, label, run["training"]) + [""] * bool(tests)
    for env in record["cells"]:
        for label, run in record["runs"].items():
            mark = "*" if run["training"]["cell"] == env else ""
            row = _row(mark, env, label, run["envs"][env])
            if tests:
                row.append(_difference(tests.get((env, label))))
            yield row


def _row(mark: str, env: str, run: str, record: dict[str, Any]) -> list[str]:
    share = record.get("retention")
    return [
        mark,
        env,
        run,
        estimate_text(record["score"]),
        estimate_text(share) if share else "",
    ]


def estimate_text(x: Estimate) -> str:
    """Format a mean with its interval, or with the reason why there is none."""
    if x["mean"] is None:
        return x["note"]
    if x["low"] is None:
        return f"{x['mean']:.3f} ({x['note']})"
    return f"{x['mean']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"


def _difference(test: dict[str, Any] | None) -> str:
    if test is None:
        return ""
    if test["p"] is None:
        return f"{test['difference']:+.3f}, {test['verdict']}"
    p = test["p_holm"]
    return f"{test['difference']:+.3f}, p {p:.3f}, {test['verdict']}"


def _align(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True))
        yield "  ".join(["", *cells]).rstrip()
