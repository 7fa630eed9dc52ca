"""Record, table and picture of a tuning, and the preset of its winner.

This module does not import Optuna or JAX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jmarl.config import read_value, split_argument
from jmarl.config.choices import GROUPS
from jmarl.config.yaml_files import GLOBAL_PACKAGE, PRESETS
from jmarl.results.metrics_file import mean_steps
from jmarl.results.tables import markdown
from jmarl.saved.list_runs import last_rows
from jmarl.studies.tuning.tune_plan import Plan


if TYPE_CHECKING:
    from jmarl.studies.tuning.trial_store import TrialLine


HOST_KEYS = ("arch", "checkpoint", "logger")
"""Groups of keys that do not belong to a preset, because learning does not depend on them."""
MARKS = {
    "complete": ("tab:blue", "o"),
    "pruned": ("tab:orange", "x"),
}


def make_record(
    plan: Plan,
    lines: Sequence[TrialLine],
    folders: Sequence[Path],
) -> dict[str, Any]:
    """Return a tuning as a tree for a JSON file: plan, cost, trials and the best trial.

    Args:
        plan: Its plan.
        lines: Its trials so far.
        folders: Their run folders.
    """
    pairs = zip(lines, folders, strict=False)
    trials = [_trial(line, folder) for line, folder in pairs]
    states = [trial["state"] for trial in trials]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=_value, default=None)
    return {
        **plan.record(),
        "cost": {
            "trials": {state: states.count(state) for state in sorted(set(states))},
            "env_steps": sum(trial["env_steps"] for trial in trials),
            "hours": sum(trial["seconds"] for trial in trials) / 3600,
        },
        "best": best["number"] if best else None,
        "trials": trials,
    }


def _trial(
    line: TrialLine,
    folder: Path,
) -> dict[str, Any]:
    last, _ = last_rows(folder / "metrics.jsonl")
    attributes = dict(line.attributes)
    seconds = attributes.pop("seconds", 0.0)
    steps = last.get("env_steps", [0])
    return {
        "number": line.number,
        "state": line.state,
        "value": None if math.isnan(line.value) else line.value,
        "overrides": list(line.words),
        "evaluations": list(map(_or_none, line.evaluations.values())),
        "seeds": len(steps),
        "env_steps": len(steps) * mean_steps(steps),
        "seconds": seconds,
        **attributes,
    }


def _value(trial: dict[str, Any]) -> float:
    return -math.inf if trial["value"] is None else trial["value"]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(record: dict[str, Any]) -> str:
    """Return the cost and the trials of a tuning as Markdown, the best trial first.

    Args:
        record: Result of ``make_record``.
    """
    keys = list(record["space"]["parameters"])
    names = [key.rpartition(".")[2] for key in keys]
    header = ("trial", "state", "value", "evals", "minutes", *names)
    trials = sorted(record["trials"], key=_order)
    rows = [_cells(trial, keys) for trial in trials]
    return "\n\n".join([cost_text(record), markdown(header, rows)])


def _order(trial: dict[str, Any]) -> tuple[bool, float, int]:
    return trial["state"] != "complete", -_value(trial), trial["number"]


def _cells(
    trial: dict[str, Any],
    keys: Sequence[str],
) -> list[str]:
    values = dict(map(split_argument, trial["overrides"]))
    return [
        str(trial["number"]),
        trial["state"],
        "-" if trial["value"] is None else f"{trial['value']:.4g}",
        str(len(trial["evaluations"])),
        f"{trial['seconds'] / 60:.1f}",
        *(_short(values.get(key, "-")) for key in keys),
    ]


def _short(text: str) -> str:
    """Return a value of the command line; floats get three digits."""
    with suppress(ValueError):
        return text if text.isdecimal() else f"{float(text):.3g}"
    return text


def cost_text(record: dict[str, Any]) -> str:
    """Return the budget of a tuning and its cost so far, as one line."""
    cost, options = record["cost"], record["options"]
    done = ", ".join(f"{count} {state}" for state, count in cost["trials"].items())
    return (
        f"{record['system']}, space {record['space']['name']}: "
        f"{options['trials']} trials of {options['seeds']} seeds ({done or 'none yet'}), "
        f"{cost['env_steps']:,} environment steps, {cost['hours']:.2f} hours of processes"
    )


def draw(
    record: dict[str, Any],
    path: Path,
) -> None:
    """Draw the values of trials in the order of their numbers, and the best so far."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import MaxNLocator

    trials, options = record["trials"], record["options"]
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for state, (color, marker) in MARKS.items():
        numbers, values = _points(trials, state)
        label = f"{state} ({len(values)})"
        axes.scatter(
            numbers,
            values,
            color=color,
            marker=marker,
            label=label,
        )
    numbers, values = _points(trials, "complete")
    best = list(itertools.accumulate(values, max))
    axes.step(
        numbers,
        best,
        where="post",
        color="black",
        label="best so far",
    )
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{options['mode']} {options['metric']}")
    space = record["space"]["name"]
    title = f"{record['system']}, space {space}, mean of {options['seeds']} seeds"
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _points(
    trials: Sequence[dict[str, Any]], state: str
) -> tuple[list[int], list[float]]:
    """Return numbers and values of the trials in a state that have a value."""
    selected = [t for t in trials if t["state"] == state and t["value"] is not None]
    numbers = [trial["number"] for trial in selected]
    values = [trial["value"] for trial in selected]
    return numbers, values


def preset_text(overrides: Iterable[str], comment: str) -> str:
    """Return a preset file that stands for some overrides.

    Seeds, folders and keys of the hardware are left out.

    Args:
        overrides: Overrides as ``key=value``; later ones take precedence.
        comment: Lines at the top.
    """
    given = dict(map(split_argument, overrides))
    keys = {key: text for key, text in given.items() if not _is_of_host(key)}
    base = [keys.pop(PRESETS)] if PRESETS in keys else []
    groups = [key for key in keys if key in GROUPS]
    choices = [{f"override /{group}": keys.pop(group)} for group in groups]
    tree: dict[str, Any] = {}
    if base or choices:
        tree["defaults"] = [*base, "_self_", *choices]
    for key, text in keys.items():
        full_key = "env.name" if key == "env" else key
        _insert(tree, full_key, read_value(key, text))
    lines = [f"# {line}" for line in comment.splitlines()]
    content = yaml.safe_dump(tree, sort_keys=False)
    return "\n".join([GLOBAL_PACKAGE, *lines, content])


def _insert(
    tree: dict[str, Any],
    key: str,
    value: Any,
) -> None:
    """Set the value of a dotted key in nested dictionaries."""
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _is_of_host(key: str) -> bool:
    seeds = ("seed", "num_seeds")
    return key in seeds or key.partition(".")[0] in HOST_KEYS
