"""Jobs of ``jmarl train <system>``: one run, or the runs of a sweep."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jmarl.cli.process import use_compile_cache, use_cores
from jmarl.config import ConfigError, RunConfig, check, compose, nearest
from jmarl.config.choices import configs_dir
from jmarl.runs.exit_codes import ExitCode


COMMON_FLAGS = ("-m", "--multirun", "-c", "--cfg", "-h", "--help")
HYDRA_FLAGS = (
    *("-p", "--package", "-i", "--info", "--resolve", "--version", "--hydra-help"),
    *("-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name"),
    *("-r", "--run", "-sc", "--shell-completion", "--experimental-rerun"),
)


def main(system: str) -> NoReturn:
    """Run ``jmarl train <system>`` with the arguments of this process, and exit."""
    from jmarl.cli import commands

    commands.main(["train", system, *sys.argv[1:]])


def launch(
    system: str, arguments: Sequence[str], run: Callable[[RunConfig], int]
) -> int:
    """Run one job, or with ``-m`` several jobs in sequence, and return the exit code.

    All jobs are checked before the first starts. A preempted job ends the sweep. The exit
    code is the first that is not 0.
    """
    use_cores()
    codes = [0]
    for config, title in _jobs(system, arguments):
        print(title, end="", flush=True)
        use_compile_cache(config.arch)
        codes.append(run(config))
        if codes[-1] == ExitCode.PREEMPTED:
            return ExitCode.PREEMPTED
    return next(filter(None, codes), 0)


def _jobs(system: str, arguments: Sequence[str]) -> list[tuple[RunConfig, str]]:
    """Return the configuration of each job, and a title to print."""
    from jmarl.training.stages import build_stages

    resume = [a for a in arguments if a.lstrip("+").startswith("resume=")]
    folder = resume[-1].partition("=")[2] if resume else ""
    if folder:
        changes = [argument for argument in arguments if argument not in resume]
        return [(_resume(system, folder, changes), "")]
    _check_flags(arguments)
    jobs, folders = [], set()
    composed = _compose_jobs(compose.to_hydra_overrides(system, arguments))
    for number, (tree, changes) in enumerate(composed, 1):
        config, chosen = compose.to_run_config(system, tree)
        rule = "each job needs its own folder; leave it empty or use a key: out/${seed}"
        check(config.run_dir not in folders, "run_dir", config.run_dir, rule)
        folders |= {config.run_dir} - {""}
        title = f"\njob {number}: {changes}\n" if len(composed) > 1 else ""
        values = ", ".join(f"{key}={value}" for key, value in chosen.items())
        title += f"arch={tree.arch.name} chose {values}\n" if values else ""
        jobs.append((config, title))
    if len(jobs) > 1:
        for config, _ in jobs:  # an invalid job must not fail after others have trained
            build_stages(config)
    return jobs


def _resume(system: str, folder: str, changes: Sequence[str]) -> RunConfig:
    """Return the configuration to continue a run with."""
    from jmarl.runs.folder import resume_config

    flags = " ".join(change for change in changes if change.startswith("-"))
    check(not flags, "resume", folder, f"cannot be combined with {flags}")
    config = resume_config(folder, changes)
    name = config.system_name
    fix = f"resume it with: jmarl train {name} resume={folder}"
    check(
        name == system, "resume", folder, f"is a run of {name}, not of {system}; {fix}"
    )
    return config


def _check_flags(arguments: Sequence[str]) -> None:
    """Raise ``ConfigError`` for an unknown flag. Hydra would print its own usage text."""
    known = (*COMMON_FLAGS, *HYDRA_FLAGS)
    for argument in arguments:
        flag = argument.partition("=")[0]
        rule = (
            f"unknown option; did you mean {nearest(flag, COMMON_FLAGS)}? (see --help)"
        )
        if flag.startswith("-") and flag not in known:
            raise ConfigError(f"{flag}: {rule}")


def _compose_jobs(overrides: Sequence[str]) -> list[tuple[Any, str]]:
    """Compose the jobs with Hydra. They run later, so that Hydra does not catch their errors."""
    composed = []

    @hydra.main(str(configs_dir()), "run", compose.HYDRA_VERSION)
    def collect(config: Any) -> None:
        with contextlib.suppress(OmegaConfBaseException):  # to_run_config raises it
            OmegaConf.resolve(config)
        changes = HydraConfig.get().job.override_dirname.replace("++", "")
        composed.append((config, changes))

    flags_first = sorted(overrides, key=lambda a: "=" in a and not a.startswith("-"))
    key = "HYDRA_FULL_ERROR"
    before = sys.argv, os.environ.get(key)
    sys.argv = [sys.argv[0], *flags_first]  # read by hydra.main
    os.environ[key] = "1"  # raise errors instead of printing them
    try:
        with compose.one_line_errors():
            collect()
    finally:
        sys.argv, full_error = before
        os.environ.pop(key)
        if full_error is not None:
            os.environ[key] = full_error
    prints_only = any(override.startswith("-") for override in overrides)
    if not (composed or prints_only):
        rule = "its jobs run in other processes, which is not supported"
        raise ConfigError(f"hydra.launcher: {rule}; leave it out")
    return composed
