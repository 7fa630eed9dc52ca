"""Names to worlds: ``make("smax_10v10")`` builds an ``Env``; nothing here imports JAX.

A *family* answers for many names and may generate more than it lists (``smax_40v40``). A single
environment is added by ``register`` or by a Python entry point in the group ``jmarl.envs``.
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


Target = str | Callable[..., Any]
"""A function, or ``"package.module:function"``, imported when it is first called."""


class Family(NamedTuple):
    """Environments that share a builder.

    ``make(name, **options) -> Env`` gets the full name. ``names() -> [(name, one line)]`` lists
    what ``jmarl envs`` prints and ``matches(name) -> bool`` also accepts generated names; neither
    may import JAX. ``hint`` says in an error what can be generated. ``scene(name, state) -> Scene``
    draws one world's state, if the family can be watched.
    """

    name: str
    make: Target
    names: Target
    matches: Target
    hint: str = ""
    scene: Target | None = None


class Entry(NamedTuple):
    """One environment of a user's own: ``factory(**options) -> Env``, and as in ``Family`` what draws it."""

    factory: Target
    doc: str
    scene: Target | None = None


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
        names="jmarl.envs.names:jaxmarl_names",
        matches="jmarl.envs.names:matches_jaxmarl",
        hint="jaxmarl_ID for an ID of JaxMARL's",
    ),
    Family(
        "jumanji",
        make="jmarl.envs.adapters.jumanji_adapter:make",
        names="jmarl.envs.names:jumanji_names",
        matches="jmarl.envs.names:matches_jumanji",
        hint="lbf_[Ss-]GxG-Pp-Ff[-coop] and rware_(tiny|small|medium|large)-Nag[-easy|-hard] for other sizes",
    ),
    Family(
        "probe",
        make="jmarl.envs.probes:make",
        names="jmarl.envs.names:probe_names",
        matches="jmarl.envs.names:matches_probe",
    ),
]
_ENTRIES: dict[str, Entry] = {}


def make(name: str, **options: Any) -> Env:
    """Build the environment ``name``; ``options`` go to its builder.

    Raises ``ValueError``, naming the nearest known names, when nothing answers to ``name``.
    """
    entry = _entry(name)
    if entry is not None:
        return resolve(entry.factory)(**options)
    return resolve(family_of(name).make)(name, **options)


def names() -> list[tuple[str, str]]:
    """Every listed environment as (name, one-line description), sorted by family."""
    listed = [row for family in FAMILIES for row in resolve(family.names)()]
    own = [(name, entry.doc) for name, entry in sorted(_ENTRIES.items())]
    plugged = [(point.name, f"from {point.value}") for point in _plugins().values()]
    return listed + own + plugged


def family_of(name: str) -> Family:
    """The family that builds ``name``, generated names included.

    Raises ``ValueError`` as ``make`` does; an environment registered singly has no family.
    """
    for family in FAMILIES:
        if resolve(family.matches)(name):
            return family
    raise ValueError(_unknown(name))


def scene_of(name: str) -> Callable[..., Any] | None:
    """What draws a state of ``name``, ``scene(name, state) -> Scene``; None if nothing does."""
    entry = _entry(name)
    scene = entry.scene if entry else family_of(name).scene
    return resolve(scene) if scene else None


def register(
    name: str, factory: Target, doc: str = "", scene: Target | None = None
) -> None:
    """Make ``factory(**options) -> Env`` known as ``name``; raises ``ValueError`` if the name is taken."""
    if _entry(name) is not None or any(
        resolve(family.matches)(name) for family in FAMILIES
    ):
        raise ValueError(f"environment {name!r} is already registered")
    _ENTRIES[name] = Entry(factory, doc, scene)


def resolve(target: Target) -> Callable[..., Any]:
    """The function behind a target, importing its module if need be."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _entry(name: str) -> Entry | None:
    point = _plugins().get(name)
    return _ENTRIES.get(name) or (Entry(point.load(), "") if point else None)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="jmarl.envs")}


def _unknown(name: str) -> str:
    known = [listed for listed, _ in names()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    hints = [family.hint for family in FAMILIES if family.hint]
    return f"unknown environment {name!r}; nearest: {', '.join([*near, *hints])}"
