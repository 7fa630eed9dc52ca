"""Composition of a ``RunConfig`` from YAML files and overrides, with Hydra.

Hydra merges files, applies overrides and expands sweeps. ``jmarl.config.build`` checks types and
keys, instead of Hydra's structured configs. OmegaConf has no unions of dataclasses chosen by a
``name``, no ``Literal`` and no ``tuple[...]``. It does not read 1e6 as an integer, and its errors
suggest no fix.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import hydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jmarl.config import ConfigError, RunConfig, build, check, nearest
from jmarl.config.choices import GROUPS, check_choice, configs_dir, systems
from jmarl.config.hardware import fill_sizes
from jmarl.envs import registry


HYDRA_VERSION = "1.3"


def load_config(system: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Load the configuration of ``jmarl train <system> <overrides>`` without running it.

    Args:
        system: Name of a system; ``jmarl systems`` lists them.
        overrides: Overrides such as ``env=smax_10v10``, ``network=gru`` or ``seed=3``.

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


def to_hydra_overrides(system: str, arguments: Iterable[str]) -> list[str]:
    """Translate arguments of the command line to overrides for Hydra.

    ``env=<name>`` becomes ``env.name=<name>``, so that an environment needs no YAML file.
    Values are forced with ``++``, so that ``build`` reports unknown keys and suggests a fix.
    Flags, deletions (``~key``) and overrides of Hydra's own keys are kept.
    """
    check_choice("system", system)
    return [f"system={system}", *map(_to_hydra_override, arguments)]


def _to_hydra_override(argument: str) -> str:
    key, equals, value = argument.lstrip("+").partition("=")
    check(not equals or key != "", "", value, "names no key; expected key=value")
    if not equals or not re.fullmatch(r"[\w.]+", key) or key.startswith("hydra."):
        return argument
    if key in ("system", "algorithm"):
        fix = f"start that system with: jmarl train {value}"
        raise ConfigError(f"{argument}: cannot be overridden; {fix}")
    if key not in GROUPS:
        return f"++{'env.name' if key == 'env' else key}={value}"
    if "(" not in value:  # else an expression for a sweep, such as glob(smax*)
        for choice in value.strip("[]").split(","):
            check_choice(key, choice.strip())
    return f"{key}={value}"


def to_run_config(system: str, composed: Any) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run configuration of a composed tree, and the sizes chosen by ``arch``."""
    import jax

    from jmarl.learning.minibatch import num_env_shards

    with one_line_errors():
        tree: Any = OmegaConf.to_container(composed, resolve=True)
    tree.pop("algorithm", None)
    rule = "keeps its configuration; jmarl.runs.folder.resume_config reads it"
    check(not tree.get("resume"), "resume", tree.get("resume"), rule)
    chosen = fill_sizes(tree, jax.default_backend(), num_env_shards())
    config = from_tree({**tree, "system_name": system})
    _check_env_names(config)
    return config, chosen


def _check_env_names(config: RunConfig) -> None:
    listed = dict(registry.names())
    for name in (name for name in config.stage_envs if name not in listed):
        try:
            registry.family_of(name)
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
    config = build(RunConfig, tree, field_types=field_types)
    check_batch(config.num_envs, config.system.num_minibatches or 1)
    return config


def _import_system(name: Any) -> Any:
    module_name = f"jmarl.systems.{name}"
    is_own_module = hasattr(sys.modules.get(module_name), "Config")
    rule = f"unknown system; did you mean {nearest(str(name), systems())}?"
    check(name in systems() or is_own_module, "system_name", name, rule)
    return importlib.import_module(module_name)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Convert errors of Hydra and OmegaConf to ``ConfigError`` with one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        message = "; ".join(str(error).replace("++", "").split("\n")).strip("; ")
        if isinstance(error, OverrideParseException):
            message = message.partition("; ")[0]  # the rest points to Hydra's manual
            message = f"{error.override.lstrip('+')}: cannot be read; {message}"
        raise ConfigError(message) from None
