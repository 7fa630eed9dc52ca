"""Registry of environments: ``make("smax_10v10")`` builds an ``Env``.

A family builds many environments and may accept more names than it lists (``smax_40v40``). A
single environment is added with ``register``, or by a Python entry point in the group
``jmarl.envs``. An entry point names a function that builds the environment. It is imported when
its environment is built, and by ``names`` for the description. Nothing else here imports JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from jmarl.config.errors import suggest


if TYPE_CHECKING:
    from jmarl.envs.players import PlayerSet
    from jmarl.types import Env


FunctionRef = str | Callable[..., Any]
"""A function, or ``"package.module:function"``, which is imported on first use."""
ObjectRef = str
"""An object as ``"package.module:name"``, which is imported on first use."""
RANDOM_PLAYER: ObjectRef = "jmarl.envs.players:RANDOM_ONLY"
BATTLE_PLAYERS: ObjectRef = "jmarl.envs.battle.players.scripted:BATTLE_PLAYERS"


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
    inline_files: FunctionRef = dict
    """``inline_files(options) -> options``, with the text of files in place of their paths."""
    players: ObjectRef = RANDOM_PLAYER
    """Scripted players of the environments, a ``jmarl.envs.players.PlayerSet``."""


class Entry(NamedTuple):
    """A single registered environment."""

    factory: FunctionRef
    """``factory(**options) -> Env``."""
    doc: str


FAMILIES: list[Family] = [
    Family(
        "battle",
        make="jmarl.envs.battle.smax.smax_battle:make",
        names="jmarl.envs.battle.scenario:names",
        matches="jmarl.envs.battle.scenario:matches",
        hint="smax_NvN for any N from 1 to 1280, smax_5v5+10v10 for teams of several sizes",
        players=BATTLE_PLAYERS,
    ),
    Family(
        "smac",
        make="jmarl.envs.battle.smac.smac_battle:make",
        names="jmarl.envs.battle.scenarios.naming:names",
        matches="jmarl.envs.battle.scenarios.naming:matches",
        hint="smac_7m2M1d_vs_8m3M1d for any teams, smacv2_terran_NvM for drawn ones",
        players=BATTLE_PLAYERS,
    ),
    Family(
        "scenario",
        make="jmarl.envs.battle.scenario_env:make",
        names=tuple,
        matches="battle".__eq__,
        hint="battle with env.scenario=<file> for a scenario file",
        inline_files="jmarl.envs.battle.scenario_env:inline_files",
        players=BATTLE_PLAYERS,
    ),
    Family(
        "football",
        make="jmarl.envs.football.football_env:make",
        names="jmarl.envs.football.scenarios.football_names:names",
        matches="jmarl.envs.football.scenarios.football_names:matches",
        hint="football_N_vs_M_with_keeper for N from 2 to 10 and M from 0 to 10",
        players="jmarl.envs.football.football_scripts:PLAYERS",
    ),
    Family(
        "jaxmarl",
        make="jmarl.envs.adapters.jaxmarl_adapter:make",
        names="jmarl.envs.catalog:jaxmarl_names",
        matches="jmarl.envs.catalog:matches_jaxmarl",
        hint="jaxmarl_ID for any ID of JaxMARL's registry",
    ),
    Family(
        "warehouse",
        make="jmarl.envs.grids.warehouse_env:make",
        names="jmarl.envs.grids.grid_names:warehouse_names",
        matches="jmarl.envs.grids.grid_names:matches_warehouse",
        hint="rware_(tiny|small|medium|large)-Nag[-easy|-hard] for any number of robots",
    ),
    Family(
        "foraging",
        make="jmarl.envs.grids.foraging_env:make",
        names="jmarl.envs.grids.grid_names:foraging_names",
        matches="jmarl.envs.grids.grid_names:matches_foraging",
        hint="lbf_[Ss-]GxG-Pp-Ff[-coop] for any size",
        players="jmarl.envs.grids.foraging_players:PLAYERS",
    ),
    Family(
        "jumanji",
        make="jmarl.envs.adapters.jumanji_adapter:make",
        names="jmarl.envs.catalog:jumanji_names",
        matches="jmarl.envs.catalog:matches_jumanji",
        hint="jumanji_ before these names for Jumanji's forms",
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
        ValueError: If the name is unknown, or its entry point cannot be imported. The message
            suggests similar names.
        ConfigError: If an option is unknown or has a wrong value.
    """
    if name in _ENTRIES:
        return _load(_ENTRIES[name].factory)(**options)
    if name in _plugins():
        return _load_plugin(_plugins()[name])(**options)
    return _load(family_of(name).make)(name, **options)


def names() -> list[tuple[str, str]]:
    """List the known environments.

    Returns:
        Pairs of a name and a one-line description: those of the families in their order, then
        registered environments, then entry points. Unlisted names of families are missing.
        The description of an entry point that cannot be imported is the error.
    """
    registered = [(name, entry.doc) for name, entry in sorted(_ENTRIES.items())]
    installed = [(name, _describe(point)) for name, point in _plugins().items()]
    return _family_names() + registered + installed


def check_name(name: str) -> None:
    """Check that a name is known, without importing entry points.

    Args:
        name: A listed or a generated name.

    Raises:
        ValueError: If the name is unknown. The message suggests similar names.
    """
    if name not in _ENTRIES and name not in _plugins():
        family_of(name)


def inline_files(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options that no longer depend on files, so that a run can store them.

    Args:
        name: A listed or a generated name.
        options: Options of the environment.

    Raises:
        ConfigError: If a file cannot be read or is wrong.
    """
    family = _find_family(name)
    return _load(family.inline_files)(options) if family else options


def players_of(name: str) -> PlayerSet:
    """Return the scripted players of an environment.

    Args:
        name: A listed or a generated name. An environment without a family has the player that
            acts at random.
    """
    family = _find_family(name)
    return _load(family.players if family else RANDOM_PLAYER)


def family_of(name: str) -> Family:
    """Find the family that builds an environment.

    Args:
        name: A listed or a generated name.

    Returns:
        The family. A registered environment or an entry point has none.

    Raises:
        ValueError: If no family builds ``name``.
    """
    family = _find_family(name)
    if family is None:
        raise ValueError(_unknown(name))
    return family


def register(name: str, factory: FunctionRef, doc: str = "") -> None:
    """Add an environment to the registry.

    Args:
        name: New name, for ``make`` and for ``env=<name>``.
        factory: ``factory(**options) -> Env``, or ``"package.module:function"``.
        doc: One-line description, for ``jmarl envs``.

    Raises:
        ValueError: If the name is taken.
    """
    if _find_family(name) or name in _ENTRIES or name in _plugins():
        raise ValueError(
            f"environment {name!r} is already registered; choose another name"
        )
    _ENTRIES[name] = Entry(factory, doc)


def _load(ref: FunctionRef) -> Any:
    if not isinstance(ref, str):
        return ref
    module, _, function = ref.partition(":")
    return getattr(import_module(module), function)


def _find_family(name: str) -> Family | None:
    return next((f for f in FAMILIES if _load(f.matches)(name)), None)


def _family_names() -> list[tuple[str, str]]:
    return [row for family in FAMILIES for row in _load(family.names)()]


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Return the entry points of installed packages, except names that a family builds."""
    points = entry_points(group="jmarl.envs")
    return {point.name: point for point in points if not _find_family(point.name)}


def _load_plugin(point: EntryPoint) -> Callable[..., Any]:
    """Import the factory of an entry point; raise ``ValueError`` if that fails."""
    try:
        factory = point.load()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"{_package(point)} cannot be imported ({reason})"
        raise ValueError(f"{problem}; repair or uninstall it") from error
    if not callable(factory):
        kind = type(factory).__name__
        rule = f"{point.value} must be a function that returns an Env, got {kind}"
        raise ValueError(f"{_package(point)}: {rule}")
    return factory


def _describe(point: EntryPoint) -> str:
    """Return the first line of the factory's docstring, or the error of its import."""
    try:
        factory = _load_plugin(point)
    except ValueError as error:
        return str(error)
    is_of_type = factory.__doc__ == type(factory).__doc__  # a functools.partial
    doc = "" if is_of_type else factory.__doc__ or ""
    summary = doc.strip().partition("\n")[0].rstrip(".")
    return f"{summary} ({_package(point)})" if summary else _package(point)


def _package(point: EntryPoint) -> str:
    """Return the package of an entry point and its version."""
    dist = point.dist
    return f"{dist.name} {dist.version}" if dist else point.value


def _unknown(name: str) -> str:
    """Return the error message for an unknown name."""
    known = [listed for listed, _ in _family_names()] + [*_ENTRIES, *_plugins()]
    fix = suggest(name, known, "`jmarl envs` lists the known ones", most=3)
    patterns = "; ".join(family.hint for family in FAMILIES if family.hint)
    return f"unknown environment {name!r}; {fix} (also valid: {patterns})"
