"""The text behind ``--help``: usage, groups and every key with its default and its comment.

Read from the text of the yaml files, whose comments are the documentation of the keys; without
JAX and without Hydra it takes some milliseconds. The files are plain: one key a line, nested by
indentation, the comment behind the value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from jmarl.config.choices import (
    GROUPS,
    configs_dir,
    defaults,
    summary,
    variants,
    yaml_names,
)


USAGE = """\
{summary}

usage: python -m jmarl.systems.{system} [group=choice ...] [key=value ...]
       jmarl train {system} [group=choice ...] [key=value ...]

  -m, --multirun   train every combination of comma-separated values: -m seed=0,1,2 env=smax_5v5,smax_10v10
  --cfg job        print the composed configuration instead of training
  -h, --help       print this
"""
ENV_CHOICES = "any that `jmarl envs` lists, and names like smax_40v40; options of a world are env.<option>"
_LINE = re.compile(
    r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s].*?))??(?: +# (?P<comment>.*))?$"
)


class Key(NamedTuple):
    """A value as the yaml has it, and the comment beside it."""

    value: str
    comment: str


def system_help(system: str) -> str:
    """What ``python -m jmarl.systems.<system> --help`` prints."""
    chosen = default_choices(system)
    groups = {f"{group}={chosen[group]}": _choices(group, system) for group in GROUPS}
    keys = {
        f"{key}={entry.value}": entry.comment
        for key, entry in default_keys(system).items()
    }
    usage = USAGE.format(summary=summary(system), system=system)
    return "\n".join(
        [usage, "groups and their choices", *table(groups), "", "keys", *table(keys)]
    )


def table(rows: dict[str, str]) -> list[str]:
    """Two columns, indented."""
    width = min(max(map(len, rows), default=0), 40)
    return [f"  {left:<{width}}  {right}".rstrip() for left, right in rows.items()]


def default_choices(system: str) -> dict[str, str]:
    """The choice of each group that a system starts from; empty for none."""
    chosen = {
        group: choice for group, choice in defaults(configs_dir() / "run.yaml") if group
    }
    return (
        {group: "" for group in GROUPS}
        | chosen
        | {"system": system}
        | _overridden(_file("system", system))
    )


def default_keys(system: str) -> dict[str, Key]:
    """Every key with its default, composed as Hydra does; those of the run first, then by group."""
    run, chosen = configs_dir() / "run.yaml", default_choices(system)
    order = dict.fromkeys([*(group for group, _ in defaults(run) if group), *GROUPS])
    keys = _own_keys(run)
    for file in (_file(group, chosen[group]) for group in order if group != "system"):
        keys |= _keys(file) if file.exists() else {}
    keys |= _with_comments(_keys(_file("system", system)), keys)
    group_of = {key: key.partition(".")[0] for key in keys}
    return {
        key: keys[key]
        for key in sorted(
            keys, key=lambda k: group_of[k] in GROUPS and GROUPS.index(group_of[k]) + 1
        )
    }


def _choices(group: str, system: str) -> str:
    if group == "env":
        return ENV_CHOICES
    return " ".join(variants(system) if group == "system" else yaml_names(group))


def _file(group: str, choice: str) -> Path:
    return configs_dir() / group / f"{choice}.yaml"


def _overridden(file: Path) -> dict[str, str]:
    """Choices of other groups that a yaml makes, its bases' first."""
    chosen: dict[str, str] = {}
    for group, choice in defaults(file):
        chosen |= (
            _overridden(_file(group, choice))
            if group == file.parent.name
            else {group: choice}
            if group
            else {}
        )
    return chosen


def _keys(file: Path) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    listed = defaults(file)
    for group, choice in (
        listed if ("", "_self_") in listed else [*listed, ("", "_self_")]
    ):
        if not group:
            keys |= _with_comments(_own_keys(file), keys)
        elif group == file.parent.name:
            keys |= _keys(_file(group, choice))
    return keys


def _with_comments(keys: dict[str, Key], base: dict[str, Key]) -> dict[str, Key]:
    """A file that only changes a value keeps the comment of the base."""
    return {
        k: Key(v.value, v.comment or base.get(k, v).comment) for k, v in keys.items()
    }


def _own_keys(file: Path) -> dict[str, Key]:
    """The dotted keys that stand in a file itself."""
    text = file.read_text(encoding="utf-8")
    top = file.parent == configs_dir() or "# @package _global_" in text
    path = [] if top else [file.parent.name]
    outer, keys = len(path), {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        del path[outer + len(match["indent"]) // 2 :]
        path.append(match["key"])
        if match["value"] is not None and path[0] not in ("defaults", "hydra"):
            keys[".".join(path)] = Key(match["value"], match["comment"] or "")
    return keys
