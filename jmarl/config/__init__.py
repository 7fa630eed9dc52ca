"""Configuration of a run, from YAML files to frozen dataclasses.

``compose`` merges files and arguments with Hydra. ``hardware`` fills in sizes that are null.
``parsing`` builds the dataclasses in ``schema`` and in the system's module.

Only ``compose`` depends on packages above this one: on systems, on the names of environments,
and on the number of environment shards.
"""

from jmarl.config.errors import ConfigError, check, check_positive, check_range, nearest
from jmarl.config.parsing import build, key_paths, read_value
from jmarl.config.schema import (
    ArchConfig,
    CheckpointConfig,
    CurriculumConfig,
    EvalConfig,
    LoggerConfig,
    RunConfig,
    StageConfig,
    SystemConfig,
)


__all__ = [
    "ArchConfig",
    "CheckpointConfig",
    "ConfigError",
    "CurriculumConfig",
    "EvalConfig",
    "LoggerConfig",
    "RunConfig",
    "StageConfig",
    "SystemConfig",
    "build",
    "check",
    "check_positive",
    "check_range",
    "key_paths",
    "nearest",
    "read_value",
]
