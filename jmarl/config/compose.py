"""From yaml and overrides to a ``RunConfig``.

Hydra chooses among files and expands sweeps. Values it takes as they come: every ``key=value``
is passed on with force (``++``), so that ``build`` knows all keys and words all errors.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from jmarl.config import ConfigError, RunConfig, build, check, key_paths
from jmarl.config import hardware as arch
from jmarl.config.choices import (
    GROUPS,
    check_choice,
    check_env,
    configs_dir,
    systems,
    yaml_names,
)


HYDRA_VERSION = "1.3"


def load_config(system: str, overrides: Iterable[str] = ()) -> RunConfig:
    """The configuration of ``python -m jmarl.systems.<system> <overrides>``, without running it.

    Raises ``ConfigError`` for a choice, a key or a value that cannot be used.
    """
    from hydra import compose, initialize_config_dir

    with (
        one_line_errors(),
        initialize_config_dir(str(configs_dir()), version_base=HYDRA_VERSION),
    ):
        composed = compose("run", overrides=prepare(system, overrides))
    return finish(system, composed)[0]


def prepare(system: str, arguments: Iterable[str]) -> list[str]:
    """What Hydra is to read instead of the user's arguments.

    Choices of groups are checked, and environments that need no yaml made known to Hydra. Flags,
    ``hydra.*`` and what already begins with ``+`` or ``~`` pass untouched; every other
    ``key=value`` is forced. Raises ``ConfigError`` for a choice that does not exist.
    """
    prepared = []
    chosen = {"env": [], "system": []}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key:
            raise ConfigError(f"{argument}: names no key")
        if key in GROUPS and equals:
            names = [name.strip() for name in value.split(",")]
            chosen[key] = [name for name in names if re.fullmatch(r"[\w.+-]+", name)]
            for name in chosen[key]:
                check_choice(key, name, system)
        elif equals and re.fullmatch(r"[\w.]+", key) and not key.startswith("hydra."):
            argument = f"++{argument}"
        prepared.append(argument)
    _offer_envs(chosen["env"])
    return prepared if chosen["system"] else [f"system={system}", *prepared]


def _offer_envs(names: Iterable[str]) -> None:
    """Make environments a choice of ``env=``: the given ones and all listed ones, unless a yaml does so."""
    from hydra.core.config_store import ConfigStore

    from jmarl.envs import registry

    for name in {*names, *dict(registry.names())} - set(yaml_names("env")):
        ConfigStore.instance().store(group="env", name=name, node={"name": name})


def finish(system: str, composed: Any) -> tuple[RunConfig, list[str]]:
    """Turn what Hydra composed into the configuration; also what ``arch`` decided, as ``key=value``.

    OmegaConf ends here. Raises ``ConfigError``.
    """
    import jax
    from omegaconf import OmegaConf

    from jmarl.learning.minibatch import num_env_shards

    with one_line_errors():
        tree: Any = OmegaConf.to_container(composed, resolve=True)
    tree.pop("hydra", None)
    rule = (
        "continues a run as it is; python -m jmarl.systems.<name> resume=<folder>, or resume_config of "
        "jmarl.runs.folder, reads its configuration"
    )
    check(not tree.get("resume"), "resume", tree.get("resume"), rule)
    for name in ("env", "system", "network", "arch", "eval"):
        check(
            isinstance(tree.get(name), dict),
            name,
            tree.get(name),
            "expected a group of keys",
        )
    tree, picked = arch.resolve(tree, jax.default_backend(), num_env_shards())
    return from_tree({**tree, "system_name": system}), picked


def from_tree(tree: dict[str, Any]) -> RunConfig:
    """The inverse of ``dataclasses.asdict``: a ``RunConfig`` from plain data. Raises ``ConfigError``."""
    from jmarl.learning.minibatch import check_batch

    for name in ("system_name", "system", "network"):
        if name not in tree:
            raise ConfigError(f"{name}: missing; give it a value")
        check(
            name == "system_name" or isinstance(tree[name], dict),
            name,
            tree[name],
            "expected a group of keys",
        )
    module = _module(tree["system_name"])
    parts = {"system": module.Config, "network": module.Network}
    also = [path for name, kind in parts.items() for path in key_paths(kind, name)]
    built = {name: build(kind, tree[name], name) for name, kind in parts.items()}
    config = build(RunConfig, {**tree, **built}, also=also)
    for world in dict.fromkeys(config.stage_envs):
        check_env_options(
            "env" if world == config.env["name"] else "curriculum.stages",
            **config.with_env(world).env,
        )
    check_batch(config.num_envs, getattr(config.system, "minibatches", 1))
    return config


def _module(system: Any) -> Any:
    rule = f"no such system; there are: {', '.join(systems())}"
    check(isinstance(system, str), "system_name", system, rule)
    try:
        module = importlib.import_module(f"jmarl.systems.{system}")
    except ModuleNotFoundError as error:
        check(
            not (error.name or "").startswith("jmarl.systems"),
            "system_name",
            system,
            rule,
        )
        raise
    check(
        hasattr(module, "Config") and hasattr(module, "Network"),
        "system_name",
        system,
        rule,
    )
    return module


def check_env_options(key: str, name: str, **options: Any) -> None:
    """Raise ``ConfigError``, which blames ``key``, unless the environment can be built, as only its builder knows."""
    from jmarl.envs import registry

    check_env(name, key)
    try:
        spec = registry.make(name, **options).spec
    except ConfigError:
        raise
    except Exception as error:
        kind = (
            ""
            if isinstance(error, ValueError | TypeError)
            else f"{type(error).__name__}: "
        )
        raise ConfigError(
            f"{key}={name}: {kind}{' '.join(str(error).split())}"
        ) from error
    check(
        spec.n_agents >= 1, key, name, f"has {spec.n_agents} agents, needs at least 1"
    )
    check(
        spec.episode_limit >= 1,
        key,
        name,
        f"has an episode limit of {spec.episode_limit}, needs at least 1",
    )


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Within it, what Hydra and OmegaConf raise becomes a ``ConfigError`` of one line."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(
            f"{error.override.lstrip('+')}: cannot be read; {str(error).partition(chr(10))[0]}"
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            "; ".join(str(error).replace("++", "").split("\n")).strip("; ")
        ) from None
