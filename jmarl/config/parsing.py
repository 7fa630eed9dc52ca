"""Construction of frozen dataclasses from plain data, with errors that name key and fix."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import yaml

from jmarl.config.errors import ConfigError, check, suggest


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def split_argument(argument: str) -> tuple[str, str]:
    """Return key and value of ``key=value``, with ``+`` and ``++`` before the key left out.

    Raises:
        ConfigError: If there is no ``=`` or no key.
    """
    key, equals, value = argument.lstrip("+").partition("=")
    if not equals:
        shown = argument or repr(argument)
        raise ConfigError(f"{shown}: expected key=value, such as seed=1")
    check(key != "", "", value, "names no key; expected key=value")
    return key, value


def read_value(key: str, text: str) -> Any:
    """Read the value of ``key=text`` as YAML.

    ``1e6`` and ``2e-3`` are read as numbers. YAML 1.1 reads them as text.

    Raises:
        ConfigError: If the text is not YAML.
    """
    try:
        return _read_exponents(yaml.safe_load(text) if text else "")
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{key}={text}: cannot be read; expected YAML") from None


def _read_exponents(value: Any) -> Any:
    if isinstance(value, list):
        return [_read_exponents(item) for item in value]
    is_number = isinstance(value, str) and _EXPONENT.fullmatch(value)
    return float(value) if is_number else value


def build(
    cls: Any,
    tree: Mapping[str, Any],
    path: str = "",
    field_types: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Build a frozen dataclass from plain data.

    Supported types are nested dataclasses, ``Literal``, ``Optional``, tuples and ``dict``. A
    union of dataclasses is resolved by the value of the ``name`` field. An int is accepted
    as a float, and a float without a fraction (``1e6``) as an int.

    Args:
        cls: Dataclass, or any other supported type.
        tree: Plain data.
        path: Dotted key of ``tree``, for errors.
        field_types: Types of fields that replace the annotated ones, by name.

    Raises:
        ConfigError: If a key is unknown or missing, or a value has a wrong type.
    """
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return _convert(cls, tree, path)
    kinds = {**typing.get_type_hints(cls), **field_types}
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            name, known = _join(path, str(key)), key_paths(cls, path, field_types)
            fix = suggest(name, known, "--help lists the keys")
            where = (
                f" with {path}.name={tree['name']}" if path and "name" in tree else ""
            )
            check(False, name, tree[key], f"unknown key{where}; {fix}")
    for name, field in fields.items():
        if name not in tree and not _has_default(field):
            raise ConfigError(f"{_join(path, name)}: missing; give it a value")
    values = {k: _convert(kinds[k], value, _join(path, k)) for k, value in tree.items()}
    return cls(**values)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    defaults = (field.default, field.default_factory)
    return any(default is not dataclasses.MISSING for default in defaults)


def key_paths(
    cls: Any, path: str = "", field_types: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """List the dotted keys of a configuration class and of all its alternatives.

    The arguments are those of ``build``.
    """
    if dataclasses.is_dataclass(cls):
        kinds = {**typing.get_type_hints(cls), **field_types}
        names = [field.name for field in dataclasses.fields(cls)]
        return [p for name in names for p in key_paths(kinds[name], _join(path, name))]
    nested = [kind for kind in typing.get_args(cls) if dataclasses.is_dataclass(kind)]
    return [p for kind in nested for p in key_paths(kind, path)] or [path]


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = _join(path, str(key))
        flat |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return build(kind, value, path)
    if origin is Literal:
        check(value in args, path, value, _rule_of_choices(map(str, args), value))
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is tuple:
        return _convert_tuple(args, value, path)
    if (origin or kind) is dict:
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return dict(value)
    return _convert_scalar(kind, value, path)


def _rule_of_choices(names: Iterable[str], value: Any) -> str:
    known = list(names)
    fix = suggest(str(value), known, "")
    return f"must be one of {', '.join(known)}{fix and f'; {fix}'}"


def _convert_scalar(kind: type, value: Any, path: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return _to_float(value)
    if kind is int and is_number and value == value // 1:  # False for NaN and infinity
        return int(value)
    check(type(value) is kind, path, value, f"expected {kind.__name__}")
    return value


def _to_float(value: float) -> float:
    """Return a float, infinite for an integer that is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _convert_tuple(kinds: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    check(isinstance(value, list | tuple), path, value, "expected a list")
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    check(len(value) == len(kinds), path, value, f"expected {len(kinds)} items")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_convert(kind, item, f"{path}[{i}]") for i, (kind, item) in pairs)


def _convert_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """Convert to None, to the dataclass with the given ``name``, or to the first fitting type."""
    if value is None and type(None) in kinds:
        return None
    nested = [k for k in kinds if dataclasses.is_dataclass(k)]
    if isinstance(value, Mapping):
        kind = nested[0] if len(nested) == 1 else _class_by_name(nested, value, path)
        return build(kind, value, path)
    plain = [k for k in kinds if k is not type(None) and k not in nested]
    for kind in sorted(plain, key=lambda k: k is not type(value)):
        try:
            return _convert(kind, value, path)
        except ConfigError:
            continue
    names = [getattr(kind, "__name__", str(kind)) for kind in plain]
    names += ["a group of keys"] if nested else []
    names += ["null"] if type(None) in kinds else []
    raise ConfigError(f"{path}={value!r}: expected {' or '.join(names)}")


def _class_by_name(kinds: list[Any], tree: Mapping[str, Any], path: str) -> Any:
    """Return the dataclass that accepts the ``name`` of the tree."""
    by_name = {}
    for kind in kinds:
        literal = typing.get_type_hints(kind)["name"]
        by_name |= dict.fromkeys(typing.get_args(literal), kind)
    name = tree.get("name")
    rule = _rule_of_choices(by_name, name)
    check(name in by_name, _join(path, "name"), name, rule)
    return by_name[str(name)]
