"""Tables of training runs: learning curves and the ablation of the mixer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.ablation import win_difference
from benchmarks.learning import HEALED, absolute_cells, healed_cell, scores
from docs.generate.markdown import NOT_RECORDED, code, details, join, number, table
from docs.generate.tables.records import Record, quoted, seeds


DESCRIPTIONS = {
    "learning": "64 environments (`arch=cpu`), with the defaults of each record's commit.",
    "learning/gpu_sizes": "512 environments (`arch=gpu`), trained on the CPU. Learning is "
    "specified per row, so win rates should not be lower than with 64 environments. QMIX has 10 "
    "seeds. Its record of 3 seeds, at commit f42e97d, had a mean of 0.897.",
    "learning/changes": "Single changes to the settings of systems with replay, on seeds other "
    "than those of the defaults; and MAPPO with PopArt. QMIX and HPN-QMIX have "
    "`system.mixer.mask_dead=false` unless a run sets it.",
    "learning/memory": "A hidden cue in episodes of 10 steps, learned from sequences of 16 rows. "
    "A sequence starts with the stored memory, or with an empty one; or its first 8 rows have no "
    "loss. The best policy without memory has a return of 0.5.",
    "learning/mixer": "SPECTra's agent with QMIX's mixer, and with ST-HyperNet "
    "(`spectra_qmix_plus`).",
    "learning/mixer_random_biases": "As `learning/mixer`, at a commit at which the biases of "
    "ST-HyperNet started at random values, as in the published code. Now they start at zero.",
    "learning/ppo": "MAPPO: the default discount and clip norm, the best of the grid, against the "
    "earlier ones (0.97 and 10), on seeds that the grid did not use. The intervals overlap on both "
    "maps.",
    "learning/ppo_grid": "MAPPO with single changes to its settings, on seeds other than those of "
    "the defaults. `gamma=0.97`, `max_grad_norm=10`, `entropy_coef=0.01`, `rollout_rows=8192` and "
    "`minibatch_rows=2048` are the unchanged values.",
    "learning/heterogeneous": "Three marines and a healer against two zealots "
    "(`env.scenario=medic`). All systems have the network `hpn`, and those of PPO have a critic "
    "that reads entities. Scripted players win as recorded in `results/players_medic.json`.",
    "learning/unmasked": "QMIX and HPN-QMIX with `system.mixer.mask_dead=false`, the default of "
    "these records' commits. The default is `true` now: the mixing leaves out dead agents. "
    "The first records on this page have that default.",
    "learning/smac": "Battles under the rules of SMAC. `battle` is `env.scenario=medic`: "
    "three marines and a healer against two zealots. Scripted players win it as recorded in "
    "`results/players_medic.json`.",
    "learning/football": "Academy scenarios of football with the presets `football_ppo`, "
    "`football_3_vs_1_ppo` and `football_pqn`. They were chosen with one seed on "
    "`football_run_to_score`, the second one on `football_3_vs_1_with_keeper`. Scripted players "
    "win as recorded in `results/players_football.json`.",
    "learning/football_slow": "MAPPO with `football_ppo`, whose steps are too small for this "
    "scenario.",
}
"""Text for the records of a folder."""
ABSOLUTE_METRIC = (
    "The absolute metric is the greedy win rate of the best parameters on fresh episodes (the "
    "return, if the environment has no win rate). The interval of its mean is over seeds "
    "(Student's t), whose variance is at least that of their numbers of episodes."
)


def learning(records: Sequence[Record]) -> str:
    """Return the summary of all runs of each folder, and their evaluations."""
    folders = dict.fromkeys(record.path.rpartition("/")[0] for record in records)
    return join(
        *(learning_section(folder, of_folder(records, folder)) for folder in folders)
    )


def of_folder(records: Sequence[Record], folder: str) -> list[Record]:
    """Return the records that lie directly in a folder."""
    return [record for record in records if record.path.rpartition("/")[0] == folder]


def learning_section(folder: str, records: Sequence[Record]) -> str:
    """Return summary and evaluations of the runs in one folder."""
    runs = [record.data for record in records]
    bars = sorted({run["bar"] for run in runs})
    header = (
        "map",
        "run",
        "absolute metric",
        "95 % interval",
        "by seed",
        f"steps to {' or '.join(f'{bar:g}' for bar in bars)}",
        "gradient steps",
        "minutes",
    )
    rows = list(map(run_row, runs))
    if any(map(healed_cell, runs)):
        header = (*header, HEALED)
        rows = [(*row, healed_cell(run)) for row, run in zip(rows, runs, strict=True)]
    return join(
        f"## `{folder}`: {settings(runs)}",
        DESCRIPTIONS.get(folder, ""),
        f"{ABSOLUTE_METRIC} The steps are environment steps until the median seed reached the bar "
        "in an evaluation.",
        table(header, rows),
        *map(evaluations, runs),
    )


def settings(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return environment, seeds and episodes of some runs."""
    maps = sorted({run["map"] for run in runs})
    counts = sorted({str(seeds(run) or NOT_RECORDED) for run in runs})
    episodes = sorted({str(run["config"]["eval"]["episodes"]) for run in runs})
    return f"{', '.join(maps)}, {' or '.join(counts)} seeds, {' or '.join(episodes)} episodes"


def run_row(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one row of the summary of training."""
    return (
        code(run["map"]),
        code(run["run"]),
        *absolute_cells(run),
        run["env_steps_to_bar"] or "not reached",
        run.get("gradient_steps", NOT_RECORDED),
        fixed(run["wall_seconds"] / 60, 1),
    )


def fixed(value: float, digits: int = 3) -> str:
    """Return a number with that many decimals."""
    return f"{value:.{digits}f}"


def evaluations(run: Mapping[str, Any]) -> str:
    """Return command and evaluations of a run, which open on a click."""
    header = ("environment steps", "greedy", "worst to best", "sampled")
    rows = table(header, map(evaluation_row, run["evaluations"]))
    text = f"Command: {quoted(run.get('train_command'))}. Medians of the seeds:"
    return details(f"Evaluations of {run['run']} on {run['map']}", join(text, rows))


def evaluation_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the row of one evaluation."""
    greedy, sampled = scores(row), scores(row, "sampled")
    median = fixed(statistics.median(greedy))
    spread = f"{fixed(min(greedy))} to {fixed(max(greedy))}"
    return max(row["env_steps"]), median, spread, fixed(statistics.median(sampled))


def ablation(records: Sequence[Record]) -> str:
    """Return win rates and parameters of each run on each map."""
    data = records[0].data
    steps, runs = number(data["arguments"]["steps"]), data["records"]
    header = (
        "map",
        "run",
        "absolute metric",
        "95 % interval",
        "by seed",
        "agent",
        "mixer",
        "parameters",
        "minutes",
    )
    return join(
        f"## Win rate of runs of {steps} environment steps",
        f"{seeds(data) or NOT_RECORDED} seeds. {ABSOLUTE_METRIC}",
        table(header, map(ablation_row, runs)),
        *map(evaluations, runs),
        "## Differences of the win rates",
        "Differences of the means over seeds, with Welch's interval.",
        table(("map", "difference", "win rate", "95 % interval"), differences(runs)),
    )


def ablation_row(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one row of the ablation."""
    minutes = fixed(run["wall_seconds"] / 60, 1)
    sizes = [run["parameters"].get(name) for name in ("agent", "mixer", "total")]
    return code(run["map"]), code(run["run"]), *absolute_cells(run), *sizes, minutes


def differences(runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the difference between the first run of each map and each other run."""
    for name in dict.fromkeys(run["map"] for run in runs):
        first, *others = [run for run in runs if run["map"] == name]
        for other in others:
            difference, low, high = map(signed, win_difference(first, other))
            pair = f"{code(first['run'])} - {code(other['run'])}"
            yield code(name), pair, difference, f"{low} to {high}"


def signed(value: float) -> str:
    """Return a number with its sign and three decimals."""
    return f"{value:+.3f}"
