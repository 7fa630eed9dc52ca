"""Types of all configuration keys, from the annotations of the configuration dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from jmarl.config import RunConfig


UNSET = ("system_name", "system", "network", "env")
"""Fields of ``RunConfig`` that are not keys, or that are groups with keys of their own."""
UNTYPED = {
    "env.name": "text",
    "rollout_rows": "int",
    "arch.num_envs": "int or null",
}
"""Keys that no dataclass has: they are resolved before ``RunConfig`` is built."""
ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""Line of an attribute in a docstring, and the lines that continue it."""


def run_types() -> dict[str, str]:
    """Return the types of the keys that all systems share."""
    keys = types_of(RunConfig, "")
    return {key: kind for key, kind in keys.items() if key not in UNSET} | UNTYPED


def system_types(system: str) -> dict[str, str]:
    """Return the types of a system's own keys, those of alternative networks included."""
    module = importlib.import_module(f"jmarl.systems.{system}")
    return types_of(module.Config, "system") | types_of(module.Network, "network")


def types_of(kind: Any, path: str) -> dict[str, str]:
    """Return the types by dotted key; a key of several alternatives has the types of all."""
    found: dict[str, list[str]] = {}
    for key, text in walk(kind, path):
        texts = found.setdefault(key, [])
        texts.extend([text] if text not in texts else [])
    return {key: " or ".join(texts) for key, texts in found.items()}


def field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings that stand below the fields of a dataclass."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    lines = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(str(below.value.value))
        for field, below in itertools.pairwise(lines)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the texts below ``Attributes:`` in the docstring of a dataclass."""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in ATTRIBUTE.findall(section)}


def network_type(system: str) -> Any:
    """Return the class of a system's networks, or the union of its classes."""
    return importlib.import_module(f"jmarl.systems.{system}").Network


def walk(kind: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, type) of every key below a type."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield from walk(hints[field.name], join(path, field.name))
        return
    nested = [k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)]
    if not nested or typing.get_origin(kind) is tuple:
        yield path, type_text(kind)
    for alternative in nested:
        yield from walk(alternative, path)


def join(path: str, name: str) -> str:
    """Return a dotted key."""
    return f"{path}.{name}" if path else name


def type_text(kind: Any) -> str:
    """Return a type in words: ``int or null``, ``list of float``, the values of a ``Literal``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(arg) for arg in args)
    if origin is tuple:
        return f"list of {type_text(args[0])}"
    if (origin or kind) is dict:
        return "group"
    if dataclasses.is_dataclass(kind):
        return "groups"
    names = {type(None): "null", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
