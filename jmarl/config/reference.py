"""Reference of the configuration: every key of a system with its default and its meaning.

Hydra composes the defaults. The meaning of a key is the comment beside it in a YAML file. If
several files have a comment, the file that is merged last takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from jmarl.config.choices import GROUPS, configs_dir
from jmarl.config.compose import hydra_initialized, to_hydra_overrides
from jmarl.config.parsing import flatten


_KEY = re.compile(r"^( *)(\w+):[^#\n]*(?:# (.*))?$", re.MULTILINE)


class KeyDoc(NamedTuple):
    """Default (as YAML text) and meaning of a configuration key."""

    default: str
    meaning: str


def documented_keys(system: str, overrides: Iterable[str] = ()) -> dict[str, KeyDoc]:
    """Return the documentation of every key of a system, in reading order.

    Args:
        system: Name of a system.
        overrides: Overrides such as ``network=hpn``, which change keys and defaults.
    """
    return read_reference(system, overrides)[1]


def read_reference(
    system: str, overrides: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, KeyDoc]]:
    """Return the default choice of each group (empty for none), and ``documented_keys``."""
    arguments = to_hydra_overrides(system, overrides)
    with hydra_initialized():
        composed = hydra.compose("run", arguments, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        merged = loader.compute_defaults_list("run", arguments, RunMode.RUN).defaults
    chosen = composed.hydra.runtime.choices
    tree: Any = OmegaConf.to_container(composed)
    for name in ("hydra", "algorithm"):
        tree.pop(name, None)
    meanings: dict[str, str] = {}
    for file in merged:
        meanings |= _comments(file.config_path, file.package)
    keys = {k: KeyDoc(_text(v), meanings.get(k, "")) for k, v in flatten(tree).items()}
    return {group: chosen.get(group) or "" for group in GROUPS}, keys


def _comments(path: str, package: str) -> dict[str, str]:
    """Return the comments beside the keys of a YAML file, by dotted key."""
    file = configs_dir() / f"{path}.yaml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    comments, keys = {}, []
    for indent, key, comment in _KEY.findall(text):
        keys[len(indent) // 2 :] = [key]
        if comment:
            comments[".".join([package, *keys]).lstrip(".")] = comment
    return comments


def _text(value: Any) -> str:
    if type(value) is int:
        return f"{value:_}"
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
