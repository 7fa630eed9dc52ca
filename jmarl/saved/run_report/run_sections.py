"""Section of a run: facts, learning curves, metrics, episodes and configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from jmarl.results.curves import LABELS, evaluations, learning_curves
from jmarl.saved.comparison.run_files import RunFiles, env_name
from jmarl.saved.comparison.run_table import Table
from jmarl.saved.comparison.selection import MODES
from jmarl.saved.run_report.config_differences import ABSENT, flatten
from jmarl.saved.run_report.episode_players import Episodes, embed
from jmarl.saved.run_report.markup import (
    Html,
    figure,
    folded,
    join,
    shortened,
    table,
    tag,
)


KINDS = {
    "absolute": "Absolute metric: best parameters of each seed, on fresh episodes",
    "eval": "Last evaluation",
}
"""Tables of metrics, by the kind of their rows."""
COUNTS = {"update": "update", "env_steps": "environment steps"}
"""Names of whole numbers."""


SPACE = "\N{NO-BREAK SPACE}"


class ReportedRun(NamedTuple):
    """A run, and its place on the page."""

    number: int
    files: RunFiles
    group: str
    """Group of the comparison, or groups."""
    is_compared: bool
    """True if the statistics include it."""
    rows: Table
    """Its rows of the table of runs."""
    episodes: Episodes

    @property
    def anchor(self) -> str:
        """Identifier of its section."""
        return f"run-{self.number}"


def run_section(run: ReportedRun) -> Html:
    """Return the section of a run."""
    files = run.files
    title = tag("h3", f"{run.number}. {files.path}", id=run.anchor)
    facts = table(("fact", "value"), _facts(run))
    parts = [title, facts, *_curves(run), *_metrics(run), *_episodes(run)]
    leaves = flatten(files.config)
    if leaves:
        settings = table(
            ("key", "value"), ((k, shortened(x)) for k, x in leaves.items())
        )
        parts.append(folded(f"Configuration ({len(leaves)} keys)", settings))
    return tag("section", join(parts))


def _facts(run: ReportedRun) -> Iterator[tuple[str, str]]:
    files = run.files
    yield "state", f"{files.state}: {files.note}" if files.note else files.state
    yield "system", str(files.config.get("system_name", ABSENT))
    yield "environment", env_name(files) or ABSENT
    yield "seeds", seed_text(run)
    yield "environment steps per seed", step_text(run)
    yield "wall time of all seeds, without compilation", time_text(run)
    yield "device", machine(files).get("device", ABSENT)
    yield "commit", files.commit or ABSENT
    yield "command", tag("code", command_text(files))


def seed_text(run: ReportedRun) -> str:
    """Return the seeds of a run, or the first and the last one."""
    if not run.files.config:
        return ABSENT
    first = int(run.files.config.get("seed", 0))
    number = int(run.files.config.get("num_seeds", 1))
    return str(first) if number == 1 else f"{first} to {first + number - 1}"


def step_text(run: ReportedRun) -> str:
    """Return the least and the largest number of environment steps of the seeds of a run."""
    steps = run.rows.groupby("seed")["env_steps"].max().dropna()
    if steps.empty:
        return ABSENT
    ends = dict.fromkeys((int(steps.min()), int(steps.max())))
    return " to ".join(f"{end:,}" for end in ends)


def time_text(run: ReportedRun) -> str:
    """Return the duration of a run up to its last evaluation."""
    seconds = run.rows["wall_time_s"].max()
    if not seconds >= 0:  # NaN if there is no evaluation
        return ABSENT
    if seconds < 120:
        return f"{seconds:.1f}{SPACE}s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f}{SPACE}min" if hours < 2 else f"{hours:.1f}{SPACE}h"


def command_text(files: RunFiles) -> str:
    """Return the command that trains a run."""
    words = files.words
    if words and words[0].startswith("python"):
        return shlex.join(words)
    system = str(files.config.get("system_name", ""))
    start = ["jmarl"] if words[:1] == ["train"] else ["jmarl", "train", system]
    return shlex.join([*start, *words])


def machine(files: RunFiles) -> dict[str, str]:
    """Return commit, devices and versions of a run."""
    about = files.about
    facts = {
        "commit": files.commit,
        "device": about.get("device_kind", about.get("device")),
        "number of devices": about.get("device_count"),
        "backend": about.get("backend", about.get("platform")),
        **files.versions,
    }
    return {name: str(value) for name, value in facts.items() if value}


def _curves(run: ReportedRun) -> Iterator[Html]:
    rows = evaluations(run.files.rows)
    if rows and any(f"greedy/{name}" in rows[0] for name in LABELS):
        yield figure(learning_curves(rows), f"curves-{run.number}")


def metric_columns(rows: Table) -> list[str]:
    """Return the columns of metrics that have values, first those of the learning curves."""
    names = [str(name) for name in rows.columns if str(name).startswith(MODES)]
    names = [name for name in names if rows[name].notna().any()]
    order = {name: i for i, name in enumerate(reversed(LABELS))}
    return sorted(names, key=lambda name: order.get(name.partition("/")[2], len(order)))


def _metrics(run: ReportedRun) -> Iterator[Html]:
    for kind, label in KINDS.items():
        found = run.rows[run.rows["kind"] == kind]
        if not found.empty:
            last = found.sort_values("update").groupby("seed").tail(1)
            yield _metric_table(last.sort_values("seed"), label)
    if not set(run.rows["kind"]) & KINDS.keys():
        yield tag("p", "This run has no evaluation.")


def _metric_table(seeds: Table, label: str) -> Html:
    """Return the metrics of one evaluation, with a column for each seed and for their mean."""
    header = ["metric", *(f"seed {int(seed)}" for seed in seeds["seed"])]
    rows = []
    for name in (*metric_columns(seeds), *COUNTS):
        values = [_number(name, value) for value in seeds[name]]
        if len(seeds) > 1:
            values.append("" if name in COUNTS else _number(name, seeds[name].mean()))
        rows.append((COUNTS.get(name, name), *values))
    if len(seeds) > 1:
        header.append("mean")
    episodes = int(seeds["episodes"].max())
    return table(header, rows, f"{label} ({episodes:,} episodes of each seed and mode)")


def _number(name: str, value: float) -> str:
    if value != value:  # NaN
        return ABSENT
    return f"{int(value):,}" if name in COUNTS else f"{value:.3f}"


def _episodes(run: ReportedRun) -> Iterator[Html]:
    yield from map(embed, run.episodes.shown)
    for path in run.episodes.left_out:
        text = f"Not on this page, because of its size: {path.name}."
        yield tag("p", text, class_="muted")
