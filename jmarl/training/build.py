"""Construction of the environment and the system of a configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jmarl.config import ConfigError, RunConfig, check
from jmarl.envs import registry
from jmarl.system import System
from jmarl.training.precision import env_in_float32, with_precision
from jmarl.types import Env


class BuiltRun(NamedTuple):
    """A configuration with the environment and the system built from it."""

    config: RunConfig
    env: Env
    system: System


def build_run(config: RunConfig, key: str = "env") -> BuiltRun:
    """Build the environment and the system of a configuration, in its precision.

    A curriculum is ignored. The result has the environment ``config.env``.

    Args:
        config: Configuration of a run.
        key: Configuration key to name in an error about the environment.

    Raises:
        ConfigError: If the environment cannot be built with its options, or the system
            cannot train in it.
    """
    env = env_in_float32(build_env(config, key))
    module = importlib.import_module(f"jmarl.systems.{config.system_name}")
    system = with_precision(module.make(env.spec, config), config.precision)
    return BuiltRun(config, env, system)


def build_env(config: RunConfig, key: str = "env") -> Env:
    """Build the environment of a configuration; raise ``ConfigError`` if that fails."""
    options = dict(config.env)
    return make_env(options.pop("name"), options, key)


def make_env(name: str, options: Mapping[str, Any], key: str = "env") -> Env:
    """Build an environment; raise ``ConfigError`` if that fails or it has no agents.

    Args:
        name: Name in the registry.
        options: Options of the environment.
        key: Configuration key to name in an error about the name.
    """
    try:
        env = registry.make(name, **options)
    except ConfigError:
        raise
    except Exception as error:
        expected = isinstance(error, ValueError | TypeError)
        kind = "" if expected else f"{type(error).__name__}: "
        message = " ".join(str(error).split())
        raise ConfigError(f"{key}={name}: {kind}{message}") from error
    agents, limit = env.spec.n_agents, env.spec.episode_limit
    check(agents >= 1, key, name, f"has {agents} agents, needs at least 1")
    check(limit >= 1, key, name, f"has an episode limit of {limit}, needs at least 1")
    return env
