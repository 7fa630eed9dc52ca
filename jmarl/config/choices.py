"""Systems and other choices of configuration, read from YAML files without JAX or Hydra."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import jmarl
from jmarl.config.errors import ConfigError, suggest
from jmarl.config.parsing import build


GROUPS = ("network", "curriculum", "arch", "logger", "sweep", "experiment")
ENDINGS = (".yaml", ".yml")
"""Endings of the path of a file. Any other text is the name of one in ``configs``."""


@cache
def configs_dir() -> Path:
    """Return the folder of YAML files: in the installed package, or next to it in a checkout."""
    package = Path(jmarl.__file__).parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def yaml_names(group: str) -> list[str]:
    """List the choices of a group, without files that start with ``_`` (parts of others)."""
    return sorted(path.stem for path in (configs_dir() / group).glob("[!_]*.yaml"))


def systems() -> list[str]:
    """List the systems, which are the files of ``configs/system``."""
    return yaml_names("system")


def check_system(name: str, shown: str) -> None:
    """Raise ``ConfigError`` unless a system exists; the error starts with ``shown``."""
    if name not in systems():
        fix = suggest(name, systems(), "`jmarl systems` lists the known ones")
        raise ConfigError(f"{shown}: unknown system; {fix}")


def summary(system: str) -> str:
    """Return the one-line summary of a system: the first comment of its YAML file."""
    lines = _read_yaml(system).splitlines()
    return next(line[2:] for line in lines if not line.startswith("# @"))


def algorithm_of(system: str) -> str:
    """Return the module of ``jmarl.systems`` that the YAML file of a system configures."""
    algorithm = yaml.safe_load(_read_yaml(system)).get("algorithm")
    module = Path(jmarl.__file__).parent / "systems" / f"{algorithm}.py"
    if not module.exists():
        rule = "must name a module of jmarl.systems"
        raise ConfigError(
            f"configs/system/{system}.yaml: algorithm={algorithm}: {rule}"
        )
    return algorithm


def _read_yaml(system: str) -> str:
    return (configs_dir() / "system" / f"{system}.yaml").read_text(encoding="utf-8")


def check_choice(group: str, choice: str) -> None:
    """Raise ``ConfigError`` unless a group has this choice."""
    known = yaml_names(group)
    if choice not in known:
        fix = suggest(choice, known, f"choices: {', '.join(known)}")
        raise ConfigError(f"{group}={choice}: unknown choice; {fix}")


def read_named(cls: Any, group: str, name: str) -> Any:
    """Read a YAML file as a dataclass.

    Args:
        cls: Dataclass with a field ``name``, which is the name of the file without its ending.
        group: Folder below ``configs``, also the key in errors.
        name: Name of a file in this folder, or the path of a YAML file.

    Raises:
        ConfigError: If the name is unknown or the file is wrong.
    """
    is_path = name.endswith(ENDINGS)
    path = Path(name) if is_path else configs_dir() / group / f"{name}.yaml"
    known = yaml_names(group)
    if not is_path and name not in known:
        otherwise = f"expected one of {', '.join(known)}, or the path of a YAML file"
        fix = suggest(name, known, otherwise)
        raise ConfigError(f"{group}={name}: unknown {group}; {fix}")
    try:
        tree = _check_keys(cls, group, _load_yaml(path))
        return dataclasses.replace(build(cls, tree), name=path.stem)
    except ConfigError as error:
        raise ConfigError(f"{group}={name}: {error}") from None


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        fix = "give the path of a YAML file"
        raise ConfigError(f"cannot be read ({reason}); {fix}") from None


def _check_keys(cls: Any, group: str, tree: Any) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(cls) if field.name != "name"]
    if not isinstance(tree, dict):
        raise ConfigError(f"holds no {group}; expected the keys {', '.join(known)}")
    for key in map(str, tree):
        fix = suggest(key, known, f"known keys: {', '.join(known)}")
        if key not in known:
            raise ConfigError(f"{key}: unknown key; {fix}")
    return tree
