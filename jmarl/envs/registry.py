"""Registry of environments: ``make("smax_10v10")`` builds an ``Env``.

A family builds many environments and may accept more names than it lists (``smax_40v40``). A
single environment is added with ``register``, or by a Python entry point in the group
``jmarl.envs``. Nothing here imports JAX.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from jmarl.types import Env


FunctionRef = str | Callable[..., Any]
"""A function, or ``"package.module:function"``, which is imported on first use."""


class Family(NamedTuple):
    """Environments that share a builder."""

    name: str
    make: FunctionRef
    """``make(name, **options) -> Env``, with the full name of the environment."""
    names: FunctionRef
    """``names() -> [(name, description)]``, for ``jmarl envs``. It must not import JAX."""
    matches: FunctionRef
    """``matches(name) -> bool``, also True for unlisted names. It must not import JAX."""
    hint: str = ""
    """Pattern of the unlisted names, for error messages."""
    scene: FunctionRef | None = None
    """``scene(name, state) -> Scene``: a picture of one environment's state."""


class Entry(NamedTuple):
    """A single registered environment."""

    factory: FunctionRef
    """``factory(**options) -> Env``."""
    doc: str
    scene: FunctionRef | None = None
    """As in ``Family``."""


FAMILIES: list[Family] = [
    Family(
        "battle",
        make="jmarl.envs.battle.env:make",
        names="jmarl.envs.battle.rules:names",
        matches="jmarl.envs.battle.rules:matches",
        hint="smax_NvN for any N from 1 to 1280, smax_5v5+10v10 for teams of several sizes",
        scene="jmarl.envs.battle.drawing:scene",
    ),
    Family(
        "jaxmarl",
        make="jmarl.envs.adapters.jaxmarl_adapter:make",
        names="jmarl.envs.catalog:jaxmarl_names",
        matches="jmarl.envs.catalog:matches_jaxmarl",
        hint="jaxmarl_ID for any ID of JaxMARL's registry",
    ),
    Family(
        "jumanji",
        make="jmarl.envs.adapters.jumanji_adapter:make",
        names="jmarl.envs.catalog:jumanji_names",
        matches="jmarl.envs.catalog:matches_jumanji",
        hint="lbf_[Ss-]GxG-Pp-Ff[-coop] and "
        "rware_(tiny|small|medium|large)-Nag[-easy|-hard] for other sizes",
    ),
    Family(
        "probe",
        make="jmarl.envs.probes:make",
        names="jmarl.envs.catalog:probe_names",
        matches="jmarl.envs.catalog:matches_probe",
    ),
]
_ENTRIES: dict[str, Entry] = {}


def make(name: str, **options: Any) -> Env:
    """Build an environment by its name.

    Args:
        name: A listed name, or one that a family generates, for example ``smax_40v40``.
        **options: Options of the environment, passed to its builder.

    Returns:
        A batch of environments as pure functions.

    Raises:
        ValueError: If the name is unknown. The message suggests similar names.
        ConfigError: If an option is unknown or has a wrong value.
    """
    entry = _find_entry(name)
    if entry is not None:
        return _load(entry.factory)(**options)
    return _load(family_of(name).make)(name, **options)


def names() -> list[tuple[str, str]]:
    """List the known environments.

    Returns:
        Pairs of a name and a one-line description: those of the families in their order, then
        registered environments, then entry points. Unlisted names of families are missing.
    """
    listed = [row for family in FAMILIES for row in _load(family.names)()]
    registered = [(name, entry.doc) for name, entry in sorted(_ENTRIES.items())]
    installed = [(name, f"from {point.value}") for name, point in _plugins().items()]
    return listed + registered + installed


def family_of(name: str) -> Family:
    """Find the family that builds an environment.

    Args:
        name: A listed or a generated name.

    Returns:
        The family. A registered environment or an entry point has none.

    Raises:
        ValueError: If no family builds ``name``.
    """
    for family in FAMILIES:
        if _load(family.matches)(name):
            return family
    raise ValueError(_unknown(name))


def scene_of(name: str) -> Callable[..., Any] | None:
    """Find the function that draws the state of an environment.

    Args:
        name: A known name.

    Returns:
        ``scene(name, state) -> Scene``, or None if the environment has none.

    Raises:
        ValueError: If the name is unknown.
    """
    entry = _find_entry(name)
    scene = entry.scene if entry else family_of(name).scene
    return _load(scene) if scene else None


def register(
    name: str, factory: FunctionRef, doc: str = "", scene: FunctionRef | None = None
) -> None:
    """Add an environment to the registry.

    Args:
        name: New name, for ``make`` and for ``env=<name>``.
        factory: ``factory(**options) -> Env``, or ``"package.module:function"``.
        doc: One-line description, for ``jmarl envs``.
        scene: ``scene(name, state) -> Scene``, which draws the state of one environment.

    Raises:
        ValueError: If the name is taken.
    """
    in_family = any(_load(family.matches)(name) for family in FAMILIES)
    if in_family or _find_entry(name) is not None:
        raise ValueError(
            f"environment {name!r} is already registered; choose another name"
        )
    _ENTRIES[name] = Entry(factory, doc, scene)


def _load(ref: FunctionRef) -> Callable[..., Any]:
    if not isinstance(ref, str):
        return ref
    module, _, function = ref.partition(":")
    return getattr(import_module(module), function)


def _find_entry(name: str) -> Entry | None:
    if name in _ENTRIES:
        return _ENTRIES[name]
    point = _plugins().get(name)
    return Entry(point.load(), "") if point else None


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="jmarl.envs")}


def _unknown(name: str) -> str:
    """Return the error message for an unknown name."""
    known = [listed for listed, _ in names()]
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if similar:
        fix = f"did you mean {' or '.join(similar)}?"
    else:
        fix = "`jmarl envs` lists the known ones"
    patterns = "; ".join(family.hint for family in FAMILIES if family.hint)
    return f"unknown environment {name!r}; {fix} (also valid: {patterns})"
