"""Help texts of systems."""

from __future__ import annotations

import textwrap

from jmarl.config.accepted import accepted_networks
from jmarl.config.choices import summary, yaml_names
from jmarl.config.reference import read_reference
from jmarl.launchers.cluster import KEY, LOCAL


HELP = """\
usage: jmarl train {system} [options] [group=choice ...] [key=value ...]
       python -m jmarl.systems.{system} [options] [group=choice ...] [key=value ...]

{summary}

options:
  -h, --help      print this help and exit
  -m, --multirun  run all combinations of comma-separated values: -m seed=0,1,2
  --cfg job       print the composed configuration and exit

groups and their choices:
{groups}

keys, defaults and meanings:
{keys}"""
COLUMNS = 120
LAUNCHERS = (
    "local: this machine; slurm, or the path of a YAML file: jobs in Slurm's queue"
)
ENVIRONMENTS = "a name that `jmarl envs` lists, or a generated one such as smax_40v40"


def system_help(system: str) -> str:
    """Return the help of a system, with all groups and keys."""
    choices, docs = read_reference(system)
    groups = {f"env={docs['env.name'].default}": ENVIRONMENTS}
    for group, choice in choices.items():
        is_network = group == "network"
        names = accepted_networks(system) if is_network else yaml_names(group)
        groups[f"{group}={choice}"] = ", ".join(names)
    groups[f"{KEY}={LOCAL}"] = LAUNCHERS
    keys = {f"{key}={doc.default}": doc.meaning for key, doc in docs.items()}
    texts = {"groups": table(groups, COLUMNS), "keys": table(keys, COLUMNS)}
    return HELP.format(system=system, summary=summary(system), **texts)


def table(rows: dict[str, str], columns: int = 10_000) -> str:
    """Format two indented columns, with lines wrapped in the second."""
    width = min(max(map(len, rows), default=0), 36)
    lines = []
    for left, right in rows.items():
        parts = textwrap.wrap(right, columns - width - 4, break_on_hyphens=False) or [
            ""
        ]
        lines.append(f"  {left:<{width}}  {parts[0]}".rstrip())
        lines += [f"{'':<{width + 4}}{part}" for part in parts[1:]]
    return "\n".join(lines)
