"""Configuration of a run, from YAML files to frozen dataclasses.

``overrides`` translates arguments, and ``compose`` merges them with the files in Hydra.
``hardware`` fills in sizes that are null. ``parsing`` builds the dataclasses in ``schema`` and in
the system's module. For help texts, ``yaml_files`` merges the files without Hydra, ``reference``
describes the keys, and ``accepted`` finds the networks of a system.

Only ``compose`` depends on packages above this one: on systems, on the names of environments,
and on the number of environment shards.
"""

from jmarl.config.errors import (
    ConfigError,
    check,
    check_positive,
    check_range,
    nearest,
    suggest,
)
from jmarl.config.parsing import build, key_paths, read_value, split_argument
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
    "split_argument",
    "suggest",
]
