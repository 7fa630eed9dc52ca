"""What a run saved, for others: its parameters, to judge them or to begin another run with them."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jmarl.config import ConfigError, RunConfig, check
from jmarl.runs import folder as run_folder
from jmarl.runs import progress as report
from jmarl.runs.checkpoint import Checkpoints, Meta
from jmarl.runs.loop import Progress, saved_as
from jmarl.system import TRANSFERABLE_FIELDS, System
from jmarl.training.compatibility import Side, check_fit
from jmarl.training.programs import State, programs, seed_keys
from jmarl.training.train import assemble, stages
from jmarl.types import Env, Params


def restore_params(
    config: RunConfig, folder: pathlib.Path, parameters: str
) -> tuple[Params, Int[np.ndarray, " S"]]:
    """What a run saved, ``best`` or ``latest`` for each of its seeds, and the update that each comes from.

    Raises ``ConfigError`` for a folder without a checkpoint.
    """
    state, step = _restore("run", config, folder)
    if parameters == "best":
        return state.best.params, np.asarray(state.best.update)
    return state.runner.learner.params, np.full(config.num_seeds, step)


def _restore(key: str, config: RunConfig, folder: pathlib.Path) -> tuple[State, int]:
    warn = report.open_reporter().warn

    def like(meta: Meta) -> State:
        part = stages(config)[Progress(**meta["position"]).stage]
        return saved_as(
            jax.eval_shape(
                programs(config, part.env, part.system).init, seed_keys(config).init
            ),
            meta,
        )

    checkpoints = Checkpoints(
        folder / "checkpoints", keep=1, verify=True, warn=warn, read_only=True
    )
    restored = checkpoints.restore(like)
    checkpoints.close()
    if restored is None:
        raise ConfigError(f"{key}={folder}: holds no checkpoint yet")
    for change in run_folder.version_changes(restored.meta["versions"]):
        warn(f"not what trained these parameters: {change}")
    return restored.state, restored.step


def load_warm_start(config: RunConfig, env: Env, system: System) -> dict[str, Any]:
    """What a run begins with that names another one in ``init_from``: fields of a learner, as host arrays ``[S, ...]``.

    ``params`` and ``target`` are the parameters of each seed's best evaluation; the other fields of ``TRANSFERABLE_FIELDS``
    are of the newest checkpoint. Raises ``ConfigError`` when parameters of ``system`` have other shapes, when the other
    run has neither one seed nor as many as this one, and when it has no checkpoint.
    """
    folder = run_folder.existing("init_from", config.init_from)
    there = run_folder.read_config(folder)
    seeds = there.num_seeds, config.num_seeds
    rule = f"has {seeds[0]} seeds and this run {seeds[1]}; make it num_seeds={seeds[0]}, or name a run of one seed"
    check(seeds[0] in (1, seeds[1]), "init_from", config.init_from, rule)
    check_fit(
        "init_from",
        config.init_from,
        Side(config, env, system),
        Side(there, *assemble(there)),
    )
    state, _ = _restore("init_from", there, folder)
    saved = {
        name: getattr(state.runner.learner, name)
        for name in TRANSFERABLE_FIELDS
        if hasattr(state.runner.learner, name)
    }
    return saved | {"params": state.best.params, "target": state.best.params}


def apply_warm_start(state: State, fields: dict[str, Any]) -> State:
    """A run's first state with the fields, as far as its learner has them; what is of one seed goes to all."""
    learner = state.runner.learner

    def place(new: Any, old: jax.Array) -> jax.Array:
        return jax.device_put(np.array(np.broadcast_to(new, old.shape)), old.sharding)

    known = {name: x for name, x in fields.items() if hasattr(learner, name)}
    placed = {
        name: jax.tree.map(place, x, getattr(learner, name))
        for name, x in known.items()
    }
    return state.replace(runner=state.runner.replace(learner=learner.replace(**placed)))
