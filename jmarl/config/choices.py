"""Systems and other choices of configuration, read from YAML files without JAX or Hydra."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

import jmarl
from jmarl.config.errors import ConfigError, suggest


GROUPS = ("network", "curriculum", "arch", "logger", "sweep", "experiment")


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
