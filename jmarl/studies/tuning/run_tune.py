"""``jmarl tune``: search the hyper-parameters of a system with trials that are runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmarl.config import ConfigError, check
from jmarl.config.yaml_files import PRESETS
from jmarl.launchers.processes import Launcher, Processes, memory_on_demand
from jmarl.results.files import replace_file, write_json
from jmarl.results.machine import environment_record, versions
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.progress import open_reporter
from jmarl.studies.cell_queue import STOPPED, Queue
from jmarl.studies.run_study import Limits, time_limit
from jmarl.studies.tuning.tune_plan import Plan, check_plan, read_plan, write_plan
from jmarl.studies.tuning.tune_record import draw, make_record, preset_text, table


if TYPE_CHECKING:
    from jmarl.studies.tuning.trial_store import TrialStore


RECORD, BEST, HISTORY = "tuning.json", "best.yaml", "history.png"
"""Files of a tuning: the record, the preset of the winner, and the picture."""


def check_optuna() -> None:
    """Raise ``ConfigError`` if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("tune: needs Optuna; pip install 'jmarl[tune]'")


def default_folder(system: str, env: Any) -> Path:
    """Return the folder of a tuning without ``out``."""
    return Path("runs", "tune", system, str(env))


def tune(
    plan: Plan,
    out: str = "",
    limits: Limits | None = None,
    preset: str = "",
    launcher: Launcher | None = None,
) -> int:
    """Train the trials of a tuning that have not ended, and report.

    All choices are checked before the first trial is trained. Each trial is trained in a process of
    its own. Several processes can work on the same tuning: they share its trials.

    Args:
        plan: The plan.
        out: Folder of the tuning; by default ``runs/tune/<system>/<env>``.
        limits: Number of trials at a time, and hours.
        preset: Second file for the preset of the winner.
        launcher: Place where trials run; by default, processes on this machine.

    Returns:
        0, or the exit code of a trial that was stopped by a signal or lacked resources.

    Raises:
        ConfigError: If the plan is invalid, or the folder holds another tuning.
        ResourceError: If a trial needs more memory than the devices have.
    """
    check_optuna()
    limits = limits or Limits()
    _check_preset(preset)
    open_reporter().info(f"checking the search space {plan.space.name}")
    with memory_on_demand():
        plan, config = check_plan(plan)
    folder = (
        Path(out).expanduser()
        if out
        else default_folder(plan.system, config.env["name"])
    )
    write_plan(folder, plan)
    code = work_off(plan, folder, config.schedule.num_evaluations, limits, launcher)
    if code in STOPPED:
        return code
    return report(folder, preset) or code


def _check_preset(preset: str) -> None:
    parent = Path(preset).expanduser().parent
    fits = not preset or (preset.endswith(".yaml") and parent.is_dir())
    check(fits, "preset", preset, "must be a file <name>.yaml in an existing folder")


def work_off(
    plan: Plan,
    folder: Path,
    evaluations: int,
    limits: Limits,
    launcher: Launcher | None = None,
) -> int:
    """Train the trials of a plan.

    Args:
        plan: The plan.
        folder: Folder of the tuning.
        evaluations: Evaluations of a trial after that of untrained parameters.
        limits: Number of trials at a time, and hours.
        launcher: Place where trials run; by default, processes on this machine.

    Returns:
        The exit code of ``Queue.work_off``.
    """
    from jmarl.studies.tuning.trial_store import make_pruner
    from jmarl.studies.tuning.tuner import Objective, Tuner, slots

    options = plan.options
    pruner = make_pruner(options.pruner, options.warmup, evaluations)
    store = _open_store(folder, plan, pruner)
    objective = Objective(options.metric, options.mode)
    tuner = Tuner(store, plan.system, plan.common(), objective)
    cells = slots(folder, options.trials)
    launcher = launcher or Processes()
    with time_limit(limits, launcher):
        queue = Queue(folder, cells, tuner.find_job, launcher.run)
        return queue.work_off(limits.jobs)


def _open_store(folder: Path, plan: Plan, pruner: Any = None) -> TrialStore:
    from jmarl.studies.tuning.trial_store import TrialStore

    return TrialStore(folder, plan.space, plan.options.seed, pruner)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a tuning as it is now.

    Raises:
        ConfigError: If the folder holds no tuning.
    """
    from jmarl.studies.tuning.tuner import slots

    plan = read_plan(folder)
    check_optuna()
    lines = _open_store(folder, plan).lines()
    folders = [slot.folder for slot in slots(folder, len(lines))]
    return make_record(plan, lines, folders)


def status(folder: str) -> int:
    """Print the trials of a tuning so far.

    Args:
        folder: Its folder.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the folder holds no tuning.
    """
    print(table(read_record(Path(folder).expanduser())))
    return ExitCode.FINISHED


def report(folder: Path, preset: str = "") -> int:
    """Print the trials of a tuning; write its record, a picture, and the preset of the winner.

    Args:
        folder: Folder of the tuning.
        preset: Second file for the preset.

    Returns:
        The exit code: 1 if no trial is complete, else 0.
    """
    record = {"environment": environment_record(versions()), **read_record(folder)}
    write_json(folder / RECORD, record)
    print(table(record))
    if record["best"] is None:
        open_reporter().warn(f"no trial is complete; see the runs in {folder}")
        return ExitCode.CRASHED
    draw(record, folder / HISTORY)
    text = winner_preset(record)
    paths = [folder / BEST, *([Path(preset).expanduser()] if preset else [])]
    for path in paths:
        replace_file(path, text)
    print(f"\nwrote {folder / RECORD}, {HISTORY} and {BEST}")
    command = f"jmarl train {record['system']} {PRESETS}={paths[-1]}"
    print(f"train the winner with: {command}", flush=True)
    return ExitCode.FINISHED


def winner_preset(record: dict[str, Any]) -> str:
    """Return the preset of the best trial of a record."""
    best, options = record["trials"][record["best"]], record["options"]
    metric = f"{options['mode']} {options['metric']}"
    seeds = f"{options['seed']} to {options['seed'] + options['seeds'] - 1}"
    lines = [
        f"{record['system']}: trial {best['number']} of {len(record['trials'])} of jmarl tune",
        f"with the space {record['space']['name']}: {metric} {best['value']:.4g}, the mean of the",
        f"seeds {seeds}, by which it was selected. Use other seeds to report it.",
    ]
    return preset_text([*record["overrides"], *best["overrides"]], "\n".join(lines))
