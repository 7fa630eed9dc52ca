"""Figures in the README and in the pages of the site, each computed from its record.

    python -m docs.generate.claims

writes the figures. A figure is the text of a link to a record, with the name of the figure as its
anchor if a record has several: ``[1.7 times](results/x.json)``, ``[83 %](results/x.json#five)``.
Pages of the site link to the copies of the records in ``benchmarks/data``.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning import absolute_cells
from benchmarks.support.common import UNFINISHED


ROOT = Path(__file__).parents[2]
LINK = re.compile(
    r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]"
    r"\((?:results/|(?:\.\./)*benchmarks/data/)([\w./-]+\.json(?:#[\w.:/-]+)?)\)"
)
"""A figure, which may have an interval in brackets, and its record with the figure's name."""
Figure = Callable[[Mapping[str, Any]], str]
"""Function of a record that returns a figure."""


def span(values: Iterable[float], digits: int = 1) -> str:
    """Return the least and the largest of some values as text."""
    low, *_, high = sorted(values)
    return f"{low:,.{digits}f} to {high:,.{digits}f}"


def _ratio(record: Mapping[str, Any]) -> str:
    return f"{record['ratio']:.2f} times the steps per second"


def _win_rate(record: Mapping[str, Any]) -> str:
    return absolute_cells(record)[0]


def _of_exact_resets(record: Mapping[str, Any]) -> str:
    rows = [row for row in record["rows"] if row["side"] == "exact"]
    return f"{span(row['speedup'] for row in rows)} times as fast"


def _scan(record: Mapping[str, Any]) -> str:
    cells = [cell for cell in record["cells"] if cell["baseline"] == "assoc"]
    return f"{span(cell['ratio'] for cell in cells)} times as fast"


def _peer(record: Mapping[str, Any]) -> str:
    return f"{span((row['ratio'] for row in record['peer']), 0)} times as many"


def _best_script(record: Mapping[str, Any]) -> str:
    players = record["envs"]["football_3_vs_1_with_keeper"]["results"].values()
    return f"{max(player['won'][0]['mean'] for player in players):.3f}"


def _engine(record: Mapping[str, Any]) -> str:
    rows = [row for row in record["costs"] if row["scenario"].startswith("3_vs_1")]
    return f"{span((row['ratio'] for row in rows), 0)} times as many"


def _decode(record: Mapping[str, Any]) -> str:
    return f"{record['recompute_over_mam']['ratio']:.1f} times the time"


def _seconds(record: Mapping[str, Any], run: str) -> str:
    return f"{record['rows'][0][run]:.0f} s"


def _covered(record: Mapping[str, Any], interval: str, **case: Any) -> str:
    """Return the range of the shares of all cases with some properties."""
    shares = [
        round(100 * row[interval])
        for row in record["rows"]
        if all(row[key] in _tuple(value) for key, value in case.items())
    ]
    low, high = min(shares), max(shares)
    return f"{low} %" if low == high else f"{low} to {high} %"


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _shares() -> Iterator[tuple[str, Figure]]:
    """Yield the figures of simulated studies."""
    for interval in ("percentiles", "student"):
        for seeds in (3, 5, 10, 20):
            case = {"scores": "normal", "statistic": "mean", "envs": 1, "seeds": seeds}
            name = f"coverage.json#{interval}-{seeds}"
            yield name, functools.partial(_covered, interval=interval, **case)
    cases = {
        "skewed": {"scores": "skewed", "statistic": ("mean", "IQM")},
        "median": {"statistic": "median", "envs": 1},
        "medians": {"statistic": "median", "envs": 3},
    }
    for name, case in cases.items():
        figure = functools.partial(_covered, interval="student", **case)
        yield f"coverage.json#{name}", figure


PARTS = (
    "step of jmarl",
    "step of JaxMARL",
    "acting of mam_ppo",
    "update of jmarl",
    "update of JaxMARL",
)
"""Parts of programs whose kernels texts refer to."""


def _kernels(record: Mapping[str, Any], part: str) -> str:
    row = next(row for row in record["rows"] if row["part"] == part)
    return f"{row['kernels']:,.0f}"


PLANNED = {
    "v5e": ("num_envs", "memory_mb", "compile_s"),
    "t4": ("num_envs", "memory_mb"),
}
"""Counts of MAM's program that texts refer to, by target."""


def _planned(record: Mapping[str, Any], system: str, target: str, count: str) -> str:
    names = system, target, "smax_10v10"
    rows = record["rows"]
    row = next(x for x in rows if (x["system"], x["target"], x["env"]) == names)
    return f"{row[count]:,.0f}"


FIGURES: dict[str, Figure] = {
    "env.json": _of_exact_resets,
    "smac.json": _peer,
    "scan.json": _scan,
    "throughput_mappo.json": _ratio,
    "throughput_pqn_vdn.json": _ratio,
    "throughput_qmix.json": _ratio,
    "football.json": _engine,
    "decode.json": _decode,
    "learning/smax_3m_mam_ppo.json": _win_rate,
    "learning/football/football_3_vs_1_with_keeper_pqn_vdn.json": _win_rate,
    "players_football.json": _best_script,
    **{
        f"compilation.json#{run}": functools.partial(_seconds, run=run)
        for run in ("empty", "another_rate", "equal", "saved")
    },
    **dict(_shares()),
    **{
        f"kernels.json#{part.replace(' ', '_')}": functools.partial(_kernels, part=part)
        for part in PARTS
    },
    **{
        f"accelerators.json#mam_ppo-{target}-{count}": functools.partial(
            _planned, system="mam_ppo", target=target, count=count
        )
        for target, counts in PLANNED.items()
        for count in counts
    },
}
"""Function of each record, or of each name in a record, that a text refers to."""
CLAIM = re.compile(r"studies/[\w.-]+/report\.json#(verdict|difference)-([1-9]\d*)")
"""A claim of a study, counted from 1: its verdict, or its difference with the interval."""


CELL = re.compile(r"studies/[\w.-]+/report\.json#([\w.+-]+):([\w./-]+)")
"""A metric of a cell of a study: the mean over its seeds with the interval."""


def _claim(record: Mapping[str, Any], quantity: str, number: int) -> str:
    claim = record["claims"][number - 1]
    if quantity == "verdict":
        return claim["verdict"]
    return "{} [{}, {}]".format(*map(_signed, claim["difference"]))


def _metric(record: Mapping[str, Any], cell: str, metric: str) -> str:
    (found,) = (each for each in record["cells"] if each["name"] == cell)
    estimate = found["metrics"][metric]
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**estimate)


def _signed(value: float | None) -> str:
    """Return a number with its sign; one seed has no interval."""
    return "undefined" if value is None else f"{value:+.3f}"


def texts(root: Path = ROOT) -> list[Path]:
    """Return the files whose figures are checked: the README and the pages of the site."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def wrong_figures(text: str, root: Path = ROOT) -> list[str]:
    """Return a line for each figure of a text that its record does not give.

    Args:
        text: Markdown.
        root: Folder with the folder ``results``.
    """
    found = (
        (figure, name, _computed(name, root)) for figure, name in LINK.findall(text)
    )
    return [
        f"{name}: the text has {figure!r}, the record gives {value!r}"
        for figure, name, value in found
        if figure != value
    ]


def with_figures(text: str, root: Path = ROOT) -> str:
    """Return a text with the figures of its records."""

    def replaced(match: re.Match[str]) -> str:
        figure = _computed(match[2], root)
        return f"[{figure}]{match[0].removeprefix(f'[{match[1]}]')}"

    return LINK.sub(replaced, text)


def _computed(name: str, root: Path) -> str:
    path = root / "results" / name.partition("#")[0]
    figure = _figure(name)
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get(UNFINISHED):
        raise ValueError(f"{path.name}: unfinished, so no text can have its figures")
    return figure(record)


def _figure(name: str) -> Figure:
    if claim := CLAIM.fullmatch(name):
        return functools.partial(_claim, quantity=claim[1], number=int(claim[2]))
    if metric := CELL.fullmatch(name):
        return functools.partial(_metric, cell=metric[1], metric=metric[2])
    if name not in FIGURES:
        raise KeyError(f"{name}: add the function of this record to FIGURES")
    return FIGURES[name]


def main() -> int:
    """Write the figures of the README and of the pages."""
    for path in texts():
        text = path.read_text(encoding="utf-8")
        path.write_text(with_figures(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
