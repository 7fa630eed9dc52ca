"""Evaluate a run's saved parameters on many fresh episodes."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from jmarl.config import RunConfig, check, check_range
from jmarl.results import tables
from jmarl.results.files import check_writable, write_json
from jmarl.runs import folder as run_folder
from jmarl.runs.compilation import compiler_options
from jmarl.runs.warm_start import restore_params
from jmarl.training.anakin import device_mesh
from jmarl.training.build import BuiltRun, build_run
from jmarl.training.compatibility import check_acting
from jmarl.training.evaluation import evaluate_modes
from jmarl.training.programs import FIRST_ABSOLUTE_KEY, seed_keys
from jmarl.types import Key, Metrics, Params


EFFORT = 1
"""Effort of the compiler, which suits a program of some seconds."""
PARAMETERS = ("best", "latest")


def evaluate_run(
    run: str,
    *,
    episodes: int = 640,
    parameters: str = "best",
    seed: int = 0,
    json: str = "",
) -> int:
    """Evaluate a run's parameters, greedily and sampled, and print the results.

    Args:
        run: Run folder.
        episodes: Episodes of each mode, exactly one in each environment.
        parameters: ``best`` (each seed's best evaluation) or ``latest``.
        seed: Seed of the episodes.
        json: File to write the results to; empty for none.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If an argument is invalid or the folder holds no checkpoint.
    """
    folder, config = open_run(run, episodes, parameters, seed, json)
    built = build_run(config)
    params, updates = restore_params(config, folder, parameters)
    results = play(built, params, episodes, seed)
    record = tables.evaluation_record(config.seeds, episodes, updates, results)
    print(tables.record_table(parameters, record), flush=True)
    if json:
        write_json(pathlib.Path(json), record)
    return 0


def transfer_run(
    run: str,
    envs: str,
    *,
    episodes: int = 640,
    parameters: str = "best",
    seed: int = 0,
    json: str = "",
) -> int:
    """Evaluate a run's parameters in other environments, unchanged (zero-shot).

    Each environment is built with the options of the run's own environment. In the run's
    own environment, the results equal those of ``evaluate_run``.

    Args:
        run: Run folder.
        envs: Names of environments, separated by commas.
        episodes: Episodes of each mode in each environment.
        parameters: ``best`` (each seed's best evaluation) or ``latest``.
        seed: Seed of the episodes.
        json: File to write the results to; empty for none.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: As ``evaluate_run``, and if acting in one of the environments needs
            parameters of other shapes. All are checked before the first episode.
    """
    folder, config = open_run(run, episodes, parameters, seed, json)
    names = [name.strip() for name in envs.split(",") if name.strip()]
    rule = "must name an environment, or several separated by commas"
    check(len(names) > 0, "envs", envs, rule)
    own = build_run(config)
    targets = {name: build_target(own, name, "envs") for name in names}
    params, updates = restore_params(config, folder, parameters)
    records = {
        name: tables.evaluation_record(
            config.seeds, episodes, updates, play(target, params, episodes, seed)
        )
        for name, target in targets.items()
    }
    print(_transfer_table(config, parameters, records), flush=True)
    if json:
        table = {"trained_on": list(config.stage_envs), "envs": records}
        write_json(pathlib.Path(json), table)
    return 0


def open_run(
    run: str, episodes: int, parameters: str, seed: int, json: str
) -> tuple[pathlib.Path, RunConfig]:
    """Check the arguments of an evaluation; return the run's folder and configuration.

    Raises:
        ConfigError: If an argument is invalid.
    """
    rule = f"must be one of {', '.join(PARAMETERS)}"
    check(parameters in PARAMETERS, "parameters", parameters, rule)
    check(episodes >= 1, "episodes", episodes, "must be at least 1")
    check_writable(json)
    folder = run_folder.find_folder("run", run)
    config = run_folder.read_config(folder)
    largest = 2**32 - 1 - FIRST_ABSOLUTE_KEY - config.eval.absolute_factor
    check_range("seed", seed, 0, largest)
    return folder, config


def build_target(
    own: BuiltRun,
    name: str,
    key: str,
) -> BuiltRun:
    """Build a run in another environment, and check that its parameters fit there.

    Args:
        own: The run in its own environment.
        name: Name of the other environment.
        key: Argument that names it, for errors.

    Raises:
        ConfigError: If there is no such environment, or acting there needs parameters of other
            shapes.
    """
    target = build_run(own.config.with_env(name), key)
    check_acting(key, name, target, own)
    return target


def play(run: BuiltRun, params: Params, episodes: int, seed: int) -> Any:
    """Return ``{mode: {name: [S, episodes]}}`` of episodes with keys of their own."""
    config, env, system = run
    number = FIRST_ABSOLUTE_KEY + config.eval.absolute_factor + seed
    keys = seed_keys(config).of_evaluation(number)

    def evaluate(params: Params, key: Key) -> dict[str, Metrics]:
        return evaluate_modes(env, system, params, key, episodes)

    with jax.set_mesh(device_mesh()):
        lowered = jax.jit(jax.vmap(evaluate)).lower(params, keys)
        compiled = lowered.compile(compiler_options(EFFORT))
        return jax.device_get(compiled(params, keys))


def _transfer_table(config: RunConfig, parameters: str, records: dict[str, Any]) -> str:
    first = next(iter(records.values()))
    trained = config.stage_envs
    summaries = {
        f"{'*' if name in trained else ' '} {name}": record["results"]
        for name, record in records.items()
    }
    table = tables.transfer_table(summaries, first["seeds"])
    return (
        f"{tables.heading(parameters, first)}; * marks training environments:\n{table}"
    )
