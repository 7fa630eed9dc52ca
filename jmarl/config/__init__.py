"""The configuration of a run, from YAML text to frozen dataclasses.

Nothing here trains, and only ``compose`` looks above this package, at environments and systems.
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
    "build",
    "check",
    "check_positive",
    "check_range",
    "key_paths",
    "nearest",
    "read_value",
]
