"""Reference of the Python packages: one page for each folder of ``jmarl``.

A page has a mkdocstrings directive for the package and one for each of its modules, so that
a new module needs no edit here.
"""

from __future__ import annotations

import ast
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jmarl
from docs.generate.markdown import join


ROOT = pathlib.Path(jmarl.__file__).parent
FOLDER = "reference/api"
ENTRY_POINTS = ("load_config", "train")
"""Functions that the page of ``jmarl`` shows first."""
ALL_FIELDS = ("jmarl.system", "jmarl.types")
"""Modules of which also the fields without a docstring are shown."""
ORDER = (
    "jmarl",
    "jmarl.config",
    "jmarl.envs",
    "jmarl.nn",
    "jmarl.ssm",
    "jmarl.networks",
    "jmarl.learning",
    "jmarl.systems",
    "jmarl.training",
    "jmarl.results",
    "jmarl.runs",
    "jmarl.saved",
    "jmarl.forecast",
    "jmarl.studies",
    "jmarl.cli",
)
"""Packages from the inner layers to the outer ones; others follow by name."""
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def packages() -> list[str]:
    """Return the dotted names of all packages, subpackages after their parent."""
    folders = [path.parent for path in ROOT.rglob("__init__.py")]
    names = [dotted(folder) for folder in folders if modules(dotted(folder))]
    return sorted(names, key=_rank)


def _rank(name: str) -> tuple[int, str]:
    top = ".".join(name.split(".")[:2])
    return (ORDER.index(top) if top in ORDER else len(ORDER), name)


def modules(package: str) -> list[str]:
    """Return the public modules of one package, without those of its subpackages."""
    files = sorted(folder(package).glob("*.py"))
    return [dotted(f.with_suffix("")) for f in files if not f.name.startswith("_")]


def folder(package: str) -> pathlib.Path:
    """Return the folder of a package."""
    return ROOT.parent.joinpath(*package.split("."))


def dotted(path: pathlib.Path) -> str:
    """Return the import name of a module or package by its path."""
    return ".".join(path.relative_to(ROOT.parent).parts)


def path_of(package: str) -> str:
    """Return the path of a package's page."""
    return f"{FOLDER}/{package}.md"


def pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of every page."""
    for package in packages():
        yield path_of(package), page(package)


def page(package: str) -> str:
    """Return the page of one package: the package itself, then each module."""
    members = ENTRY_POINTS if package == "jmarl" else own_members(package)
    own = directive(package, heading_level=1, members=list(members) or False)
    shown = [directive(module, **module_options(module)) for module in modules(package)]
    return join(f"---\ntitle: {package}\n---", own, *shown)


def module_options(module: str) -> dict[str, Any]:
    """Return the mkdocstrings options of one module."""
    return {"show_if_no_docstring": True} if module in ALL_FIELDS else {}


def directive(name: str, **options: Any) -> str:
    """Return a mkdocstrings directive."""
    if not options:
        return f"::: {name}"
    lines = [f"      {key}: {json.dumps(value)}" for key, value in options.items()]
    return "\n".join([f"::: {name}", "    options:", *lines])


def own_members(package: str) -> list[str]:
    """Return the public functions and classes that a package's ``__init__`` defines."""
    text = (folder(package) / "__init__.py").read_text(encoding="utf-8")
    nodes = [n for n in ast.parse(text).body if isinstance(n, DEFINITIONS)]
    return [node.name for node in nodes if not node.name.startswith("_")]
