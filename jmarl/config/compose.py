"""Composition of a ``RunConfig`` from YAML files and overrides, with Hydra.

Hydra merges files, applies overrides and expands sweeps. ``jmarl.config.build`` checks types and
keys, instead of Hydra's structured configs. OmegaConf has no unions of dataclasses chosen by a
``name``, no ``Literal`` and no ``tuple[...]``. It does not read 1e6 as an integer, and its errors
suggest no fix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jmarl.config import ConfigError, RunConfig, build, check, check_range
from jmarl.config.choices import check_system, configs_dir
from jmarl.config.errors import MAX_SIZE
from jmarl.config.hardware import fill_sizes
from jmarl.config.overrides import to_hydra_overrides
from jmarl.config.parsing import flatten
from jmarl.envs import registry


HYDRA_VERSION = "1.3"
MIN_FLOAT, MAX_FLOAT = 1.2e-38, 3.4e38
"""Smallest and largest positive number of float32, rounded."""
_OF_PYTHON = (AttributeError, LookupError, TypeError)
_NOT_REMOVED = re.compile(r"Could not delete from config\. '(.*)' does not exist")


def load_config(system: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Load the configuration of ``jmarl train <system> <overrides>`` without running it.

    Args:
        system: Name of a system; ``jmarl systems`` lists them.
        overrides: Overrides such as ``env=smax_10v10``, ``network=gru`` or ``seed=3``.

    Returns:
        The configuration, a frozen dataclass with one field for each key. Sizes that
        are null, such as ``num_envs`` and ``rollout_length``, are replaced by numbers.
        ``schedule`` has the updates, evaluations and stages of the run.

    Raises:
        ConfigError: If a choice, a key or a value is invalid.
    """
    with hydra_initialized():
        composed = hydra.compose("run", to_hydra_overrides(system, overrides))
    return to_run_config(system, composed)[0]


@contextlib.contextmanager
def hydra_initialized() -> Iterator[None]:
    """Initialize Hydra with the folder of YAML files; errors become ``ConfigError``."""
    folder = str(configs_dir())
    with hydra.initialize_config_dir(folder, version_base=HYDRA_VERSION):
        with one_line_errors():
            yield


def to_run_config(system: str, composed: Any) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run configuration of a composed tree, and the values of sizes that were null."""
    from jmarl.learning.minibatch import num_env_shards
    from jmarl.platforms import platform

    tree = _resolve(composed)
    tree.pop("algorithm", None)
    rule = "keeps its configuration; jmarl.runs.folder.resume_config reads it"
    check(not tree.get("resume"), "resume", tree.get("resume"), rule)
    chosen = fill_sizes(tree, platform(), num_env_shards())
    config = from_tree({**tree, "system_name": system})
    _check_env_names(config)
    env = registry.inline_files(config.env["name"], config.env)
    return dataclasses.replace(config, env=env), chosen


def _resolve(composed: Any) -> dict[str, Any]:
    """Return a composed tree as plain data, with interpolations such as ``${seed}`` resolved."""
    try:
        tree: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raw: Any = OmegaConf.to_container(composed)
        key, reason = str(error.full_key), str(error).partition("\n")[0]
        fix = "${...} must name another key"
        raise ConfigError(f"{key}={flatten(raw).get(key)}: {reason}; {fix}") from None
    return tree


def _check_env_names(config: RunConfig) -> None:
    for name in config.stage_envs:
        try:
            registry.check_name(name)
        except ValueError as error:
            key = "env" if name == config.env["name"] else "curriculum.stages"
            raise ConfigError(f"{key}={name}: {error}") from None


def from_tree(tree: dict[str, Any]) -> RunConfig:
    """Build a ``RunConfig`` from plain data, the format of ``dataclasses.asdict``.

    Raises ``ConfigError`` if a key is unknown or missing, or a value is invalid.
    """
    from jmarl.learning.minibatch import check_batch

    if "system_name" not in tree:
        raise ConfigError("system_name: missing; give it a value")
    module = _import_system(tree["system_name"])
    field_types = {"system": module.Config, "network": module.Network}
    for group, kind in field_types.items():
        if isinstance(tree.get(group), Mapping):
            _check_numbers(group, dataclasses.asdict(build(kind, tree[group], group)))
    config = build(RunConfig, tree, field_types=field_types)
    _check_numbers("env", config.env)
    check_batch(config.num_envs, config.system.num_minibatches or 1)
    return config


def _check_numbers(group: str, tree: dict[str, Any]) -> None:
    """Check that every number fits into 32 bits, as in JAX."""
    for key, value in flatten(tree, group).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int):
                check_range(key, abs(number), 0, MAX_SIZE)
            elif isinstance(number, float) and number != 0:
                fits = MIN_FLOAT <= abs(number) <= MAX_FLOAT
                rule = f"must be 0 or from {MIN_FLOAT} to {MAX_FLOAT}, the range of float32"
                check(fits, key, number, rule)


def _import_system(name: Any) -> Any:
    module_name = f"jmarl.systems.{name}"
    is_own_module = hasattr(sys.modules.get(module_name), "Config")
    if not is_own_module:
        check_system(str(name), f"system_name={name!r}")
    return importlib.import_module(module_name)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Convert errors of Hydra and OmegaConf to ``ConfigError`` with one line.

    Invalid keys of Hydra can also raise built-in exceptions of Python.
    """
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, *_OF_PYTHON) as error:
        reason = str(error).replace("++", "").partition("\n")[0].rstrip(".")
        message = f"{reason}; leave out keys that start with hydra"
        if removed := _NOT_REMOVED.fullmatch(reason):
            key = removed[1]
            message = f"~{key}: cannot be removed, because it is null or does not exist"
        raise ConfigError(message) from None
