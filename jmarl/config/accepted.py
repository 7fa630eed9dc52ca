"""Networks that a system accepts: the rule of ``network=<choice>`` for help texts and errors.

A network fits a system if its keys are those of the class ``Network`` of the system's module. If
``Network`` is a union, the keys must be those of one of its classes. The class is read from source,
because importing the module imports JAX.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jmarl
from jmarl.config.choices import algorithm_of, yaml_names
from jmarl.config.errors import ConfigError, suggest
from jmarl.config.yaml_files import files_of, merge


class _Field(NamedTuple):
    """Field of a dataclass, as written in the source."""

    annotation: ast.expr
    required: bool


_Fields = dict[str, _Field]


def accepted_networks(system: str) -> list[str]:
    """List the choices of ``network=`` that fit a system.

    Args:
        system: Name of a system; ``jmarl systems`` lists them.
    """
    classes = _find_classes(f"jmarl.systems.{algorithm_of(system)}", "Network")
    if not classes:  # defined in another way, so that only ``build`` can check it
        return yaml_names("network")
    trees = {name: network_tree(name) for name in yaml_names("network")}
    return [
        name
        for name, tree in trees.items()
        if any(_fits(fields, tree) for fields in classes)
    ]


def network_tree(name: str) -> dict[str, Any]:
    """Return the keys of a choice of ``network=``, with their defaults."""
    return merge(files_of(f"network/{name}", {}))["network"]


def check_network(system: str, name: str) -> None:
    """Raise ``ConfigError`` unless a network exists and fits a system."""
    accepted = accepted_networks(system)
    if name in accepted:
        return
    takes = f"it takes {' or '.join(accepted) or 'none; leave it out'}"
    if name in yaml_names("network"):
        raise ConfigError(f"network={name}: does not fit {system}; {takes}")
    fix = suggest(name, accepted, takes)
    raise ConfigError(f"network={name}: unknown network; {fix}")


def _fits(fields: _Fields, tree: Mapping[str, Any]) -> bool:
    required = {name for name, field in fields.items() if field.required}
    if not required <= set(tree) <= set(fields):
        return False
    names = ast.walk(fields["name"].annotation) if "name" in fields else []
    literals = [node.value for node in names if isinstance(node, ast.Constant)]
    return "name" not in tree or tree["name"] in literals


def _find_classes(module: str, name: str) -> list[_Fields]:
    """Return the fields of a class, or of each class of a union, by its name in a module."""
    file = _source_file(module)
    source = file.read_text(encoding="utf-8") if file.exists() else ""
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=found) if found == name:
                return [_fields(module, node)]
            case ast.ImportFrom(module=str(origin), names=aliases):
                for alias in aliases:
                    if (alias.asname or alias.name) == name:
                        return _find_classes(origin, alias.name)
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                parts = [n.id for n in ast.walk(value) if isinstance(n, ast.Name)]
                return [c for part in parts for c in _find_classes(module, part)]
    return []


def _source_file(module: str) -> Path:
    path = Path(jmarl.__file__).parents[1].joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _fields(module: str, cls: ast.ClassDef) -> _Fields:
    bases = [base.id for base in cls.bases if isinstance(base, ast.Name)]
    inherited = [fields for base in bases for fields in _find_classes(module, base)]
    fields = {name: field for base in inherited for name, field in base.items()}
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            required = node.value is None
            fields[node.target.id] = _Field(node.annotation, required)
    return fields
