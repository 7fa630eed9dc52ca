"""From the arguments of ``jmarl train <system>`` to finished runs."""

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


def main(system: str) -> NoReturn:
    """Run ``jmarl train <system>`` with the arguments of this process, and exit."""
    from jmarl.cli import commands

    commands.main(["train", system, *sys.argv[1:]])


def launch(
    system: str, arguments: Sequence[str], run: Callable[[RunConfig], int]
) -> int:
    """Run the jobs that the arguments describe: one, or with ``-m`` several in sequence.

    All jobs are checked before the first starts. A preempted job ends the sweep. The result
    is the first exit code that is not 0.
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
    from jmarl.runs.folder import resume_config

    resume = [a for a in arguments if a.lstrip("+").startswith("resume=")]
    folder = resume[-1].partition("=")[2] if resume else ""
    if folder:
        changes = [argument for argument in arguments if argument not in resume]
        return [(resume_config(folder, [f"system={system}", *changes]), "")]
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
    return jobs


def _check_flags(arguments: Sequence[str]) -> None:
    """Raise ``ConfigError`` for an unknown flag, which Hydra would answer with its usage."""
    known = ("-m", "--multirun", "-c", "--cfg", "-p", "--package", "-i", "--info")
    for argument in arguments:
        flag = argument.partition("=")[0]
        rule = f"unknown option; did you mean {nearest(flag, known)}? (see --help)"
        if flag.startswith("-") and flag not in (*known, "--resolve"):
            raise ConfigError(f"{flag}: {rule}")


def _compose_jobs(overrides: Sequence[str]) -> list[tuple[Any, str]]:
    """Let Hydra compose the jobs. They run later, because Hydra would report their errors."""
    composed = []

    @hydra.main(str(configs_dir()), "run", compose.HYDRA_VERSION)
    def collect(config: Any) -> None:
        with contextlib.suppress(OmegaConfBaseException):  # to_run_config raises it
            OmegaConf.resolve(config)
        changes = HydraConfig.get().job.override_dirname.replace("++", "")
        composed.append((config, changes))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing them
    flags_first = sorted(overrides, key=lambda a: "=" in a and not a.startswith("-"))
    before, sys.argv = sys.argv, [sys.argv[0], *flags_first]  # read by hydra.main
    try:
        with compose.one_line_errors():
            collect()
    finally:
        sys.argv = before
    return composed
