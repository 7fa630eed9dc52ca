"""What there is to choose from: systems, their variants, configuration groups. Free of JAX and of Hydra.

Everything here is read from names of files and from the text of yaml files, so that ``--help``,
``jmarl systems`` and the check of a mistyped choice cost a few milliseconds.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import yaml

import jmarl
from jmarl.config import ConfigError, nearest


GROUPS = (
    "env",
    "system",
    "network",
    "curriculum",
    "arch",
    "logger",
    "sweep",
    "experiment",
)
_PACKAGE = Path(jmarl.__file__).parent


@cache
def configs_dir() -> Path:
    """The folder of yaml files: inside the installed package, or at the top of a checkout."""
    packaged = _PACKAGE / "configs"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "configs"


def systems() -> list[str]:
    """Every module of ``jmarl.systems`` that has a default configuration; the kits have none."""
    modules = {path.stem for path in (_PACKAGE / "systems").glob("*.py")}
    return sorted(modules & set(yaml_names("system")))


def summary(system: str) -> str:
    """First line of the docstring of a system's module, read without importing it."""
    tree = ast.parse(
        (_PACKAGE / "systems" / f"{system}.py").read_text(encoding="utf-8")
    )
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def yaml_names(group: str) -> list[str]:
    """Names of the yaml files of a group; those that begin with ``_`` are parts of others."""
    names = (path.stem for path in (configs_dir() / group).glob("*.yaml"))
    return sorted(name for name in names if not name.startswith("_"))


def variants(system: str) -> list[str]:
    """The choices of ``system=``: the module's own yaml and every one that builds on it."""
    return [name for name in yaml_names("system") if module_of(name) == system]


def module_of(variant: str) -> str | None:
    """The system whose module a yaml of group ``system`` configures: its own name, or that of its base."""
    if variant in systems():
        return variant
    bases = [
        base
        for group, base in defaults(configs_dir() / "system" / f"{variant}.yaml")
        if group == "system"
    ]
    return next((module for base in bases if (module := module_of(base))), None)


def defaults(path: Path) -> list[tuple[str, str]]:
    """The defaults list of a yaml file as (group, choice) in order; ``_self_`` has the group ``""``."""
    entries = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(
        "defaults", []
    )
    return [found for entry in entries if (found := _entry(entry, path.parent.name))]


def _entry(entry: str | dict[str, str | None], group: str) -> tuple[str, str] | None:
    if isinstance(entry, str):
        return ("", entry) if entry == "_self_" else (group, entry.partition("@")[0])
    ((key, choice),) = entry.items()
    name = re.sub(r"^(override|optional) ", "", key).lstrip("/")
    return (name, choice) if choice and not name.startswith("hydra") else None


def check_choice(group: str, choice: str, system: str) -> None:
    """Raise ``ConfigError`` unless ``group=choice`` exists; an environment is asked of the registry."""
    if group == "env":
        return check_env(choice)
    known = variants(system) if group == "system" else yaml_names(group)
    if choice not in known:
        whose = f"no variant of {system}" if group == "system" else "no such choice"
        near = nearest(choice, known)
        raise ConfigError(
            f"{group}={choice}: {whose}; the nearest is {near} (there are: {', '.join(known)})"
        )
    return None


def check_env(name: str, key: str = "env") -> None:
    """Raise ``ConfigError`` unless a registered environment, or a family that generates it, has this name."""
    from jmarl.envs import registry

    if name in dict(registry.names()):
        return
    try:
        registry.family_of(name)
    except ValueError as error:
        raise ConfigError(f"{key}={name}: {error}") from None
