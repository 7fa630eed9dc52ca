"""What a run saved, for others: its parameters."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
from jaxtyping import Int

from jmarl.config import ConfigError, RunConfig
from jmarl.training import folder as run_folder
from jmarl.training import report
from jmarl.training.api import stages
from jmarl.training.checkpoint import Checkpoints, Meta
from jmarl.training.loop import Position
from jmarl.training.programs import State, programs, seed_keys
from jmarl.types import Params


def restore_params(config: RunConfig, folder: pathlib.Path, parameters: str) -> tuple[Params, Int[np.ndarray, " S"]]:
    """What a run saved, ``best`` or ``latest`` for each of its seeds, and the update that each comes from.

    Raises ``ConfigError`` for a folder without a checkpoint.
    """
    state, step = _restore(config, folder)
    if parameters == "best":
        return state.best.params, np.asarray(state.best.update)
    return state.runner.learner.params, np.full(config.num_seeds, step)


def _restore(config: RunConfig, folder: pathlib.Path) -> tuple[State, int]:
    warn = report.open_reporter().warn

    def like(meta: Meta) -> State:
        part = stages(config)[Position(**meta["position"]).stage]
        return jax.eval_shape(programs(config, part.env, part.system).init, seed_keys(config).init)

    checkpoints = Checkpoints(folder / "checkpoints", keep=1, verify=True, warn=warn, read_only=True)
    restored = checkpoints.restore(like)
    checkpoints.close()
    if restored is None:
        raise ConfigError(f"run={folder}: holds no checkpoint yet")
    for change in run_folder.version_changes(restored.meta["versions"]):
        warn(f"not what trained these parameters: {change}")
    return restored.state, restored.step
