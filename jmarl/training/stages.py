"""Stages of a run: one, or those of a curriculum."""

from __future__ import annotations

from jmarl.config import RunConfig
from jmarl.training.build import BuiltRun, build_run
from jmarl.training.compatibility import check_fit


def build_stages(config: RunConfig) -> tuple[BuiltRun, ...]:
    """Build every stage of a run, in order. Evaluations use the last stage.

    Raises:
        ConfigError: If an environment cannot be built, if the system cannot be trained in it, or
            if the parameters of a stage have other shapes than those of the last stage.
    """
    stages = tuple(_build_stage(config, name) for name in config.stage_envs)
    for stage in stages[:-1]:
        name = stage.config.env["name"]
        check_fit("curriculum.stages", name, stage, stages[-1])
    return stages


def _build_stage(config: RunConfig, name: str) -> BuiltRun:
    key = "env" if name == config.env["name"] else "curriculum.stages"
    stage = build_run(config.with_env(name), key)
    if stage.system.fault is not None:
        raise stage.system.fault
    return stage
