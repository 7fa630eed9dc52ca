"""Composition of the jobs of ``jmarl train`` from arguments, with Hydra."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jmarl.cli.process import use_cores
from jmarl.cli.sweep import Job
from jmarl.config import ConfigError, RunConfig, check, compose, suggest
from jmarl.config.choices import configs_dir
from jmarl.config.overrides import to_hydra_overrides
from jmarl.config.parsing import read_value, split_argument
from jmarl.hosts.start import start


FLAGS = ("-m", "--multirun", "-c", "--cfg", "-h", "--help")
SHOWS, SHOWN = "--cfg=", ("job", "hydra", "all")
"""Option that prints the configuration, and its values."""
OF_SWEEP = ("system=", "sweep=", "hydra.", "hydra/")
"""Prefixes of overrides that the command of a single job does not have."""


def compose_jobs(system: str, arguments: Sequence[str]) -> list[Job]:
    """Return the jobs of a command line; none if ``--cfg`` prints the configuration.

    Args:
        system: Name of a system.
        arguments: Flags and overrides. ``resume=<folder>`` gives the job of that run.

    Raises:
        ConfigError: If an argument is invalid, or if there is no job.
    """
    resume = [a for a in arguments if a.lstrip("+").startswith("resume=")]
    folder = resume[-1].partition("=")[2] if resume else ""
    if folder:
        changes = [argument for argument in arguments if argument not in resume]
        config = _resume(system, folder, changes)
        return [Job(config, "", "", tuple(arguments))]
    words = to_hydra_overrides(system, _check_flags(arguments))
    words.sort(key=lambda word: not word.startswith("-"))  # argparse needs flags first
    trees, overrides = _compose_jobs(words)
    use_cores()
    distributed = [tree.get("distributed") is True for tree in trees]
    rule = "a sweep cannot span processes; start each of its runs by itself"
    check(len(trees) < 2 or not any(distributed), "distributed", "true", rule)
    start(any(distributed))
    titles = _changes(overrides)
    parts = zip(trees, titles, overrides, strict=True)
    return [_to_job(system, *part) for part in parts]


def _changes(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Return, as text, the overrides of each job that not all jobs share."""
    counts = Counter(word for job in overrides for word in set(job))
    return [
        ", ".join(word for word in job if counts[word] < len(overrides))
        for job in overrides
    ]


def _to_job(system: str, tree: Any, changes: str, words: Sequence[str]) -> Job:
    from jmarl.runs.folder import check_folders

    config, chosen = compose.to_run_config(system, tree)
    check_folders(config)
    values = ", ".join(f"{key}={value}" for key, value in chosen.items())
    sizes = f"chosen: {values}\n" if values else ""
    own = tuple(word for word in words if not word.startswith(OF_SWEEP))
    return Job(config, changes, sizes, own)


def _resume(system: str, folder: str, changes: Sequence[str]) -> RunConfig:
    """Return the configuration with which a run continues."""
    from jmarl.runs.folder import resume_config

    use_cores()
    words = (change for change in changes if not change.startswith("-"))
    given = dict(map(split_argument, words))
    start(read_value("distributed", given.get("distributed", "false")) is True)
    flags = " ".join(change for change in changes if change.startswith("-"))
    check(not flags, "resume", folder, f"cannot be combined with {flags}")
    config = resume_config(folder, changes)
    name = config.system_name
    fix = f"resume it with: jmarl train {name} resume={folder}"
    check(
        name == system, "resume", folder, f"is a run of {name}, not of {system}; {fix}"
    )
    return config


def _check_flags(arguments: Sequence[str]) -> list[str]:
    """Return the arguments, with ``--cfg`` and its value as one word.

    Raises:
        ConfigError: For other flags of Hydra, which have no meaning for a run, and for ``--cfg``
            in a sweep.
    """
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        flag, _, value = word.partition("=")
        if flag in ("-c", "--cfg"):
            value = value or (rest.pop(0) if rest else "")
            rule = f"must be one of {', '.join(SHOWN)}, such as --cfg job"
            check(value in SHOWN, flag, value, rule)
            word = f"{SHOWS}{value}"
        elif flag.startswith("-") and word not in FLAGS:
            fix = suggest(flag, FLAGS, "--help lists the options")
            raise ConfigError(f"{flag}: unknown option; {fix}")
        words.append(word)
    shows = any(word.startswith(SHOWS) for word in words)
    if shows and not {"-m", "--multirun"}.isdisjoint(words):
        raise ConfigError("--cfg: prints one configuration; leave out -m")
    return words


def _compose_jobs(words: Sequence[str]) -> tuple[list[Any], list[list[str]]]:
    """Return the trees and the overrides of all jobs.

    The jobs run later, so that Hydra does not catch their errors.
    """
    trees, overrides = [], []

    @hydra.main(str(configs_dir()), "run", compose.HYDRA_VERSION)
    def collect(config: Any) -> None:
        with contextlib.suppress(OmegaConfBaseException):  # to_run_config raises it
            OmegaConf.resolve(config)
        trees.append(config)
        task: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
        overrides.append([word.lstrip("+") for word in task])

    with _hydra_process(words), compose.one_line_errors():
        collect()
    shows_only = any(word.startswith(SHOWS) for word in words)
    if not (trees or shows_only):
        fix = "give a key at least one value, and leave out hydra.launcher"
        raise ConfigError(f"-m: there is no job to run; {fix}")
    return trees, overrides


@contextlib.contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """Set the inputs of ``hydra.main``: arguments, a folder for its files, full errors."""
    key = "HYDRA_FULL_ERROR"
    before = sys.argv, os.environ.get(key)
    os.environ[key] = "1"
    try:
        with tempfile.TemporaryDirectory() as folder:
            sys.argv = [sys.argv[0], *arguments, f"hydra.sweep.dir={folder}"]
            yield
    finally:
        sys.argv, full_error = before
        os.environ.pop(key)
        if full_error is not None:
            os.environ[key] = full_error
