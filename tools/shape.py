"""Measure the shape of the code, and fail if it exceeds a limit.

    python tools/shape.py [path ...]

Counts four faults, which must be zero, and four averages, which have limits:

    long folders          folders with more than 12 modules, ``__init__.py`` not counted
    duplicate file names  modules of the package that share a name
    long lines            lines over 100 columns
    docstring openings    docstrings whose first line is not in the imperative (ruff D401)
    function length       lines of code of a function, without docstring, comments and blank lines
    tokens per line       tokens on a line of code
    repeated lines        share of the lines of code that belong to a run of six found elsewhere

With paths, only the faults and averages of those files or folders are reported.
"""

from __future__ import annotations

import ast
import collections
import io
import pathlib
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator


ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ("jmarl", "benchmarks", "docs/generate", "tests", "tools")
MAX_MODULES = 12
MAX_COLUMNS = 100
MAX_MEDIAN_LENGTH = 8
MAX_P90_LENGTH = 24
MAX_TOKENS = 9.5
MAX_REPEATED = 0.01
RUN = 6
"""Consecutive equal lines that count as a repetition."""

LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
Functions = (ast.FunctionDef, ast.AsyncFunctionDef)
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def python_files(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Return the Python files below some paths, sorted."""
    found = set()
    for path in paths:
        found.update([path] if path.is_file() else path.rglob("*.py"))
    return sorted(found)


def long_folders(files: Iterable[pathlib.Path]) -> list[str]:
    """Return the folders with too many modules."""
    modules = [
        file for file in files if file.name not in ("__init__.py", "__main__.py")
    ]
    counts = collections.Counter(file.parent for file in modules)
    return [
        f"{shown(folder)}: {n} modules"
        for folder, n in counts.items()
        if n > MAX_MODULES
    ]


def duplicate_names(files: Iterable[pathlib.Path]) -> list[str]:
    """Return the names that several modules share."""
    places = collections.defaultdict(list)
    for file in files:
        if not file.name.startswith("__"):
            places[file.name].append(shown(file))
    return [", ".join(same) for same in places.values() if len(same) > 1]


def long_lines(files: Iterable[pathlib.Path]) -> list[str]:
    """Return the places of lines that are too long."""
    return [
        f"{shown(file)}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > MAX_COLUMNS
    ]


def weak_openings(files: Iterable[pathlib.Path]) -> list[str]:
    """Return the docstrings whose first line is not in the imperative, as ruff judges it."""
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--isolated"]
    options = ["--select", "D401", "--output-format", "concise"]
    result = subprocess.run(
        [*command, *options, *map(str, files)], capture_output=True, text=True
    )
    return [line for line in result.stdout.splitlines() if "D401" in line]


def code_lines(file: pathlib.Path) -> dict[int, list[str]]:
    """Return the tokens of each line of code, without docstrings and comments."""
    source = file.read_text()
    hidden = set(docstring_lines(ast.parse(source)))
    lines = collections.defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if (
            token.type not in LAYOUT
            and token.type != tokenize.COMMENT
            and line not in hidden
        ):
            lines[line].append(token.string)
    return lines


def docstring_lines(tree: ast.AST) -> Iterator[int]:
    """Yield the line numbers of docstrings, those of attributes included."""
    for node in ast.walk(tree):
        if not isinstance(node, Documented):
            continue
        for statement in node.body:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                if isinstance(statement, ast.Expr):
                    yield from range(statement.lineno, (statement.end_lineno or 0) + 1)


def function_lengths(
    file: pathlib.Path, lines: dict[int, list[str]]
) -> list[tuple[int, str]]:
    """Return the lines of code of each function, nested functions not counted twice."""
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, Functions)]
    owner = {}
    for node in functions:  # breadth first, so inner functions overwrite outer ones
        for line in range(node.lineno, (node.end_lineno or 0) + 1):
            owner[line] = node
    counts = collections.Counter(owner[line] for line in lines if line in owner)
    return [(counts[node], f"{shown(file)}:{node.name}") for node in functions]


def repeated_share(code: dict[pathlib.Path, dict[int, list[str]]]) -> float:
    """Return the share of code lines that belong to a run found in two places."""
    seen = collections.defaultdict(list)
    for file, lines in code.items():
        kept = [
            (n, " ".join(t)) for n, t in lines.items() if t[0] not in ("import", "from")
        ]
        kept = [(number, text) for number, text in kept if len(text) > 2]
        for i in range(len(kept) - RUN + 1):
            window = kept[i : i + RUN]
            seen[tuple(text for _, text in window)].append(
                [(file, n) for n, _ in window]
            )
    repeated = {
        line
        for places in seen.values()
        if len(places) > 1
        for p in places
        for line in p
    }
    return len(repeated) / max(1, sum(map(len, code.values())))


def shown(path: pathlib.Path) -> str:
    """Return a path relative to the repository."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def report_faults(files: list[pathlib.Path]) -> int:
    """Print the faults; return how many there are."""
    package = [file for file in files if shown(file).startswith("jmarl/")]
    faults = {
        "long folders": long_folders(files),
        "duplicate file names": duplicate_names(package),
        "long lines": long_lines(files),
        "docstring openings": weak_openings(files),
    }
    for name, places in faults.items():
        print(f"{name:<22}{len(places):>7}    limit 0")
        for place in places[:20]:
            print(f"    {place}")
    return sum(map(len, faults.values()))


def report_averages(files: list[pathlib.Path]) -> int:
    """Print the averages; return how many exceed their limit."""
    code = {file: code_lines(file) for file in files}
    lengths = sorted(
        row for file, lines in code.items() for row in function_lengths(file, lines)
    )
    counts = [n for n, _ in lengths] or [0]
    tokens = [len(line) for lines in code.values() for line in lines.values()] or [0]
    averages = [
        ("function length, median", statistics.median(counts), MAX_MEDIAN_LENGTH),
        ("function length, p90", counts[int(0.9 * len(counts))], MAX_P90_LENGTH),
        ("tokens per code line", statistics.mean(tokens), MAX_TOKENS),
        ("repeated lines", repeated_share(code), MAX_REPEATED),
    ]
    for name, value, limit in averages:
        print(f"{name:<24}{value:>9.3g}    limit {limit}")
    print(
        f"longest functions: {', '.join(f'{name} ({n})' for n, name in lengths[:-6:-1])}"
    )
    return sum(value > limit for _, value, limit in averages)


def main(arguments: list[str]) -> int:
    """Report on the package, or on the given paths; return the exit code."""
    chosen = [pathlib.Path(argument).resolve() for argument in arguments]
    everything = python_files(ROOT / source for source in SOURCES)
    measured = python_files(chosen or [ROOT / "jmarl"])
    failures = report_faults(python_files(chosen) if chosen else everything)
    return int(failures + report_averages(measured) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
