"""Loading of a run's parameters, for evaluation or for the warm start of another run."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jmarl.config import ConfigError, RunConfig, check
from jmarl.hosts.arrays import place as place_array
from jmarl.runs import folder as run_folder
from jmarl.runs import progress as report
from jmarl.runs.checkpoint import Checkpoints, Meta
from jmarl.runs.loop import Progress, saved_shapes
from jmarl.training.build import BuiltRun, build_run
from jmarl.training.compatibility import check_fit
from jmarl.training.programs import State, seed_keys, stage_programs
from jmarl.training.stages import build_stages
from jmarl.types import Params


def restore_params(
    config: RunConfig, folder: pathlib.Path, parameters: str
) -> tuple[Params, Int[np.ndarray, " S"]]:
    """Load the parameters of each seed of a run.

    Args:
        config: Configuration of the run.
        folder: Its run folder.
        parameters: ``best`` or ``latest``.

    Returns:
        The parameters, with a leading seed axis, and the update of each seed's parameters.

    Raises:
        ConfigError: If the folder holds no checkpoint.
    """
    state, step = _restore("run", config, folder)
    if parameters == "best":
        return state.best.params, np.asarray(state.best.update)
    return state.runner.learner.params, np.full(config.num_seeds, step)


def restore_learner(config: RunConfig, folder: pathlib.Path) -> Any:
    """Load the state of learning of a run's newest checkpoint, with a leading seed axis.

    Raises:
        ConfigError: If the folder holds no checkpoint.
    """
    state, _ = _restore("run", config, folder)
    return state.runner.learner


def _restore(key: str, config: RunConfig, folder: pathlib.Path) -> tuple[State, int]:
    """Restore the newest valid checkpoint. Errors name the configuration key ``key``."""
    warn = report.open_reporter().warn

    def expected_shapes(meta: Meta) -> State:
        stage = Progress(**meta["position"]).stage
        programs = stage_programs(build_stages(config)[stage])
        shapes = jax.eval_shape(programs.init, seed_keys(config).init)
        return saved_shapes(shapes, meta)

    checkpoints = Checkpoints(
        folder / "checkpoints", keep=1, verify=True, warn=warn, read_only=True
    )
    restored = checkpoints.restore(expected_shapes)
    checkpoints.close()
    if restored is None:
        raise ConfigError(f"{key}={folder}: holds no checkpoint yet")
    for change in run_folder.version_changes(restored.meta["versions"]):
        warn(f"the parameters were trained with other versions: {change}")
    return restored.state, restored.step


def load_warm_start(run: BuiltRun) -> dict[str, Any]:
    """Load the fields of a learner for a warm start from ``init_from``.

    ``params`` and ``target`` are the parameters of each seed's best evaluation.
    ``value_stats`` are the statistics of the newest checkpoint.

    Returns:
        Host arrays ``[S, ...]`` by field. A field that is None is not used by the system.

    Raises:
        ConfigError: If the other run has no checkpoint or parameters of other shapes. Also
            if its number of seeds is neither 1 nor that of this run.
    """
    config = run.config
    folder = run_folder.find_folder("init_from", config.init_from)
    other = run_folder.read_config(folder)
    rule = (
        f"has {other.num_seeds} seeds and this run {config.num_seeds}; "
        f"set num_seeds={other.num_seeds}, or name a run with one seed"
    )
    fits = other.num_seeds in (1, config.num_seeds)
    check(fits, "init_from", config.init_from, rule)
    check_fit("init_from", config.init_from, run, build_run(other, "init_from"))
    state, _ = _restore("init_from", other, folder)
    learner = state.runner.learner
    params = state.best.params
    if other.system.rescales_values:
        params = learner.params  # the value statistics are those of the last update
    return {
        "params": params,
        "target": params,
        "value_stats": learner.value_stats,
    }


def apply_warm_start(state: State, fields: dict[str, Any]) -> State:
    """Replace fields of the learner in a run's first state.

    Fields that the learner does not use stay None. Arrays of one seed are copied to all
    seeds.
    """
    learner = state.runner.learner
    used = {"params": learner.params}
    used |= {"target": learner.target, "value_stats": learner.value_stats}

    def place(new: Any, old: jax.Array) -> jax.Array:
        copy = np.array(np.broadcast_to(new, old.shape))
        return place_array(copy, old.sharding)

    placed = {
        name: jax.tree.map(place, value, used[name])
        for name, value in fields.items()
        if value is not None and used[name] is not None
    }
    learner = learner.replace(**placed)
    return state.replace(runner=state.runner.replace(learner=learner))
