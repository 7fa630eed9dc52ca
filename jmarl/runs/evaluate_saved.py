"""Judging a run's parameters on many fresh episodes: at its end, and by ``jmarl evaluate`` later."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np

from jmarl.cli.launch import use_compile_cache
from jmarl.config import RunConfig, check, check_range
from jmarl.config.compose import check_env_options
from jmarl.runs import folder as run_folder
from jmarl.runs import progress as report
from jmarl.runs.loop import Progress, RunContext, log_absolute
from jmarl.runs.warm_start import restore_params
from jmarl.system import System
from jmarl.training.anakin import device_mesh
from jmarl.training.compatibility import Side, check_acting
from jmarl.training.evaluation import evaluate_modes
from jmarl.training.programs import ABSOLUTE, State, seed_keys
from jmarl.training.train import assemble
from jmarl.types import Env, Params


PARAMETERS = ("best", "latest")


def absolute_metric(s: RunContext, state: State, at: Progress) -> str:
    """The best parameters on ``absolute_factor`` times the episodes of an evaluation, all of them fresh.

    Gorsane et al. 2022 (arXiv:2209.10485), section 4. Calls the compiled evaluation again,
    writes ``evaluation.json`` and a row of metrics, and returns a table. A signal between two calls
    ends it with nothing written and an empty text; a run that resumes begins it anew.
    """
    best, parts = state.best, []
    for i in range(s.config.eval.absolute_factor):
        if s.stop():
            return ""
        parts.append(
            jax.device_get(
                s.programs[-1].evaluate(
                    best, best.params, s.keys.at(ABSOLUTE + i), at.update
                )[1]
            )
        )
    results = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)
    log_absolute(s, at, results)
    tree = _tree(
        s.config,
        s.config.eval.absolute_factor * s.config.eval.episodes,
        best.update,
        results,
    )
    run_folder.write_json(s.folder / "evaluation.json", tree)
    return _table("best", tree)


def evaluate_run(
    run: str,
    *,
    episodes: int = 640,
    parameters: str = "best",
    seed: int = 0,
    json: str = "",
) -> int:
    """Judge a run's parameters again, greedily and sampled, and print means with 95 % intervals.

    ``parameters`` is ``best`` (each seed's best evaluation) or ``latest``; ``seed`` draws other
    episodes; ``json`` names a file for the results. Raises ``ConfigError`` when there is nothing to judge.
    """
    folder, config = _to_judge(run, episodes, parameters, seed, json)
    env, system = assemble(config)
    params, updates = restore_params(config, folder, parameters)
    tree = _tree(
        config, episodes, updates, _play(config, env, system, params, episodes, seed)
    )
    print(_table(parameters, tree), flush=True)
    if json:
        run_folder.write_json(pathlib.Path(json), tree)
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
    """Judge a run's parameters, as they are, in the worlds ``envs`` (names with commas between), and print one table.

    Each world has the options of the run's own. The rest is as in ``evaluate_run``, whose results the run's own
    world gives again. Raises ``ConfigError`` too for a world in which acting needs parameters of other shapes,
    before any is played.
    """
    folder, config = _to_judge(run, episodes, parameters, seed, json)
    names = [name.strip() for name in envs.split(",") if name.strip()]
    check(
        len(names) > 0,
        "envs",
        envs,
        "must name a world, or several with commas between",
    )
    own = Side(config, *assemble(config))
    worlds = {name: _other_world(own, name) for name in names}
    params, updates = restore_params(config, folder, parameters)
    trees = {
        name: _tree(
            config,
            episodes,
            updates,
            _play(config, env, system, params, episodes, seed),
        )
        for name, (env, system) in worlds.items()
    }
    print(_worlds_table(config, parameters, trees), flush=True)
    if json:
        run_folder.write_json(
            pathlib.Path(json), {"trained_on": list(config.stage_envs), "worlds": trees}
        )
    return 0


def _to_judge(
    run: str, episodes: int, parameters: str, seed: int, json: str
) -> tuple[pathlib.Path, RunConfig]:
    """The folder and the configuration of a run, and that it can be judged so."""
    check(
        parameters in PARAMETERS,
        "parameters",
        parameters,
        f"must be one of {', '.join(PARAMETERS)}",
    )
    check(episodes >= 1, "episodes", episodes, "must be at least 1")
    _check_target(json)
    folder = run_folder.existing("run", run)
    config = run_folder.read_config(folder)
    check_range("seed", seed, 0, 2**32 - 1 - ABSOLUTE - config.eval.absolute_factor)
    use_compile_cache(config.arch)
    return folder, config


def _other_world(own: Side, name: str) -> tuple[Env, System]:
    config = own.config.with_env(name)
    check_env_options("envs", **config.env)
    env, system = assemble(config)
    check_acting("envs", name, Side(config, env, system), own)
    return env, system


def _play(
    config: RunConfig,
    env: Env,
    system: System,
    params: Params,
    episodes: int,
    seed: int,
) -> Any:
    """``{mode: {name: [S, episodes]}}`` of episodes that no other part of the run has played."""
    keys = seed_keys(config).at(ABSOLUTE + config.eval.absolute_factor + seed)
    with jax.set_mesh(device_mesh()):
        play = jax.jit(
            jax.vmap(
                lambda params, key: evaluate_modes(env, system, params, key, episodes)
            )
        )
        return jax.device_get(play(params, keys))


def _check_target(json: str) -> None:
    """Evaluating takes minutes; that its results can be written is known before."""
    path = pathlib.Path(json)
    fits = not json or (
        path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()
    )
    check(fits, "json", json, "cannot be written; name a file in a folder that exists")


def _tree(
    config: RunConfig, episodes: int, updates: Any, results: Any
) -> dict[str, Any]:
    return {
        "episodes": episodes,
        "seeds": list(range(config.seed, config.seed + config.num_seeds)),
        "update": np.asarray(updates).tolist(),
        "results": report.summarize(results),
    }


def _table(parameters: str, tree: dict[str, Any]) -> str:
    return f"{_head(parameters, tree)}:\n{report.table(tree['results'], tree['seeds'])}"


def _worlds_table(config: RunConfig, parameters: str, trees: dict[str, Any]) -> str:
    first = next(iter(trees.values()))
    marked = {
        f"* {name}" if name in config.stage_envs else f"  {name}": tree["results"]
        for name, tree in trees.items()
    }
    return f"{_head(parameters, first)}; those trained on have a *:\n{report.worlds_table(marked, first['seeds'])}"


def _head(parameters: str, tree: dict[str, Any]) -> str:
    head = f"{parameters} parameters (of update {', '.join(map(str, tree['update']))}), {tree['episodes']} episodes"
    return f"{head}, means and 95 % intervals"
