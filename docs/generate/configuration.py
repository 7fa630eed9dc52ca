"""Reference of the configuration keys: type, default and meaning of each.

Types come from the dataclasses (``docs.generate.schema``). Defaults and meanings come from
the yaml files below ``configs`` and the comments in them (``jmarl.config.reference``).
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from docs.generate.markdown import code, fence, join, table
from docs.generate.schema import (
    attribute_docs,
    field_docs,
    network_type,
    run_types,
    system_types,
    type_text,
    types_of,
)
from jmarl.config import RunConfig, build
from jmarl.config.accepted import accepted_networks, network_tree
from jmarl.config.choices import (
    GROUPS,
    algorithm_of,
    configs_dir,
    summary,
    systems,
    yaml_names,
)
from jmarl.config.reference import KeyDoc, read_reference
from jmarl.envs import registry
from jmarl.envs.battle.scenario import BattleConfig
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.saved.grid_file import Grid, read_grid


FOLDER = "reference/configuration"
HEADER = ("key", "type", "default", "meaning")
SECTIONS = {
    "": "Run",
    "env": "Environment",
    "eval": "Evaluation",
    "checkpoint": "Checkpoints",
    "curriculum": "Curriculum",
    "arch": "Hardware",
    "logger": "Loggers",
}
"""First part of a shared key -> title of its section."""
PARTS = {
    "curriculum.stages.env": "environment of a stage",
    "curriculum.stages.fraction": "share of the updates of the run, in (0, 1]",
}
"""Keys of a list, which have no line in a yaml file."""
BASE = "ippo"
"""System whose shared defaults are those of ``configs/run.yaml``."""


class Row(NamedTuple):
    """A row of a table of keys."""

    key: str
    type: str
    default: str
    meaning: str


def pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of every page."""
    yield f"{FOLDER}/index.md", index_page()
    yield f"{FOLDER}/networks.md", networks_page()
    yield f"{FOLDER}/mixers.md", mixers_page()
    yield f"{FOLDER}/grids.md", grids_page()
    for system in systems():
        yield f"{FOLDER}/{system}.md", system_page(system)


class Reference(NamedTuple):
    """Default choice of each group, and all keys, of a system."""

    choices: dict[str, str]
    keys: dict[str, KeyDoc]


@cache
def reference(system: str, *overrides: str) -> Reference:
    """Return choices and keys of a system."""
    return Reference(*read_reference(system, overrides))


# Keys that all systems share.


INDEX = """\
# Configuration keys

A run is configured by `key=value` arguments. A key is dotted: `eval.episodes=128`. Each table lists
the type, the default and the meaning of a key. `null` means that jmarl chooses the value. The
sections on this page hold for every system. Keys of one system are on its own page, keys of a
network under [Networks](networks.md), keys of a value-decomposition mixer under
[Mixers](mixers.md). The files of zero-shot grids are under [Grids](grids.md).

`jmarl train <system> --help` prints the same keys in the terminal."""

GROUPS_TEXT = """\
## Groups

A group is a set of keys that one word selects: `logger=tensorboard`. Single keys of a group can
still be set: `logger=wandb logger.wandb_project=battles`."""

ENVIRONMENTS = """\
`env=<name>` selects an environment, and `env.<option>=<value>` sets an option of it."""


def index_page() -> str:
    """Return the page of the shared keys."""
    links = [(f"[`{s}`]({s}.md)", summary(s)) for s in systems()]
    return join(
        INDEX,
        "## Systems",
        table(("system", "algorithm"), links),
        GROUPS_TEXT,
        table(("group", "default", "choices"), group_rows()),
        *shared_sections(),
    )


def group_rows() -> Iterator[tuple[str, str, str]]:
    """Yield each group with its default and its choices."""
    choices = reference(BASE).choices
    for group in GROUPS:
        names = " ".join(map(code, yaml_names(group)))
        if group == "network":
            yield code(group), "of the system", f"[networks](networks.md): {names}"
        else:
            yield code(group), code(choices[group] or "none"), names


def shared_sections() -> Iterator[str]:
    """Yield the sections of the shared keys, in the order of ``SECTIONS``."""
    rows = shared_rows()
    for part, title in SECTIONS.items():
        chosen = [row for row in rows if section_of(row.key) == part]
        extra = EXTRAS[part]() if part in EXTRAS else ""
        yield join(f"## {title}", key_table(chosen), extra)


def section_of(key: str) -> str:
    """Return the first part of a key if it is a section, else the section of the run."""
    part = key.partition(".")[0]
    return part if part in SECTIONS else ""


def shared_rows(system: str = BASE) -> list[Row]:
    """Return a row for each key that all systems share, with the defaults of one of them."""
    known = reference(system).keys
    fallbacks = field_docs(RunConfig) | PARTS
    rows = []
    for key, kind in run_types().items():
        entry = known.get(key, KeyDoc("", ""))
        meaning = entry.meaning or fallbacks.get(key, "")
        rows.append(Row(key, kind, entry.default, meaning))
    return rows


def environments_table() -> str:
    """Return the listed environments and the hints at those that are generated."""
    rows = [(code(name), text) for name, text in registry.names()]
    hints = [f"* {family.hint}" for family in registry.FAMILIES if family.hint]
    listed = table(("name", "environment"), rows)
    generated = join("Other names are generated:", "\n".join(hints))
    return join(ENVIRONMENTS, listed, generated, *map(options_section, OPTIONS))


class Options(NamedTuple):
    """Options of a family of environments, ``env.<option>``."""

    title: str
    text: str
    config: type


OPTIONS = (
    Options(
        "Options of `smac_`, `smacv2_` and `battle`",
        "`env=battle` also needs `env.scenario`, the path of a "
        "[scenario file](../battles/keys.md).",
        SmacConfig,
    ),
    Options("Options of `smax_`", "The defaults are those of SMAX.", BattleConfig),
)


def options_section(options: Options) -> str:
    """Return the table of a family's options."""
    title = f"### {options.title}"
    return join(title, options.text, key_table(option_rows(options.config)))


def option_rows(config: type) -> Iterator[Row]:
    """Yield a row for each option of a family."""
    meanings, kinds = attribute_docs(config), typing.get_type_hints(config)
    for option in dataclasses.fields(config):
        default = option.default
        text = default if isinstance(default, str) else json.dumps(default)
        kind, meaning = type_text(kinds[option.name]), meanings[option.name]
        meaning = meaning.replace("``", "`").rstrip(".")
        yield Row(f"env.{option.name}", kind, text, meaning)


def hardware_table() -> str:
    """Return the values of each choice of ``arch``."""
    presets = {
        name: reference(BASE, f"arch={name}").keys for name in yaml_names("arch")
    }
    keys = [key for key in reference(BASE).keys if key.startswith("arch.")]
    header = ("key", *(code(f"arch={name}") for name in presets))
    rows = [
        (code(k), *(code(keys[k].default) for keys in presets.values())) for k in keys
    ]
    return table(header, rows)


EXTRAS = {"env": environments_table, "arch": hardware_table}
"""Section -> text that follows its keys."""


# Keys of one system.


def system_page(system: str) -> str:
    """Return the page of one system."""
    module = f"jmarl.systems.{algorithm_of(system)}"
    rows = system_rows(system)
    return join(
        f"# `{system}`",
        yaml_comment("system", system),
        f"The algorithm is the module [`{module}`][{module}].",
        fence(f"python -m jmarl.systems.{system} env=smax_3m", "bash"),
        "## System",
        key_table(row for row in rows if row.key.startswith("system.")),
        "## Network",
        networks_text(system),
        key_table(row for row in rows if row.key.startswith("network.")),
        changed_text(system),
    )


def system_rows(system: str) -> list[Row]:
    """Return a row for each key of a system, with its default network and mixer."""
    known, kinds = reference(system).keys, system_types(system)
    return [Row(key, kinds[key], *known[key]) for key in kinds if key in known]


def networks_text(system: str) -> str:
    """Return the choices of ``network=`` that fit a system."""
    fitting = accepted_networks(system)
    links = ", ".join(f"[`{choice}`](networks.md#{choice})" for choice in fitting)
    default = reference(system).choices["network"]
    return f"`network=` takes {links}. The default is `{default}`, with these keys:"


def changed_text(system: str) -> str:
    """Return the shared keys for which a system has another default."""
    pairs = zip(shared_rows(system), shared_rows(), strict=True)
    rows = [own for own, base in pairs if own.default != base.default]
    return join("## Other defaults", key_table(rows)) if rows else ""


# Keys of networks and mixers.


NETWORKS = """\
# Networks

`network=<choice>` selects a network. Each section lists the systems that accept it."""


def networks_page() -> str:
    """Return the page of all networks."""
    return join(NETWORKS, *map(network_section, yaml_names("network")))


def network_section(choice: str) -> str:
    """Return the section of one choice of ``network=``."""
    takers = [system for system in systems() if choice in accepted_networks(system)]
    kinds = types_of(class_of(takers[0], choice), "network")
    rows = [Row(key, kinds[key], *doc) for key, doc in network_keys(choice).items()]
    title = f"## `{choice}` {{ #{choice} }}"
    comment = yaml_comment("network", choice)
    return join(title, comment, f"Accepted by {system_links(takers)}.", key_table(rows))


def network_keys(choice: str) -> dict[str, KeyDoc]:
    """Return the keys of one choice of ``network=``, which no system changes."""
    keys = reference(BASE, f"network={choice}").keys
    return {key: doc for key, doc in keys.items() if key.startswith("network.")}


def class_of(system: str, choice: str) -> type:
    """Return the class that a system builds from a network that it accepts."""
    return type(build(network_type(system), network_tree(choice), "network"))


MIXERS = """\
# Mixers

A value system mixes the agents' values into the value of the team. `system.mixer` holds the mixer
of a system. To use another one, remove the group and add a new one with all keys of that mixer:

```bash
python -m jmarl.systems.qmix '~system.mixer' '+system.mixer={name: sum, mask_dead: true}'
```"""


def mixers_page() -> str:
    """Return the page of all value-decomposition mixers."""
    sections = [mixer_section(name, users) for name, users in mixers().items()]
    return join(MIXERS, *sections)


def mixers() -> dict[str, list[str]]:
    """Return the name of each mixer and the systems that have it by default."""
    found: dict[str, list[str]] = {}
    for system in systems():
        entry = reference(system).keys.get("system.mixer.name")
        if entry:
            found.setdefault(entry.default, []).append(system)
    return found


def mixer_section(name: str, users: list[str]) -> str:
    """Return the section of one mixer."""
    rows = [row for row in system_rows(users[0]) if row.key.startswith("system.mixer.")]
    title = f"## `{name}` {{ #{name} }}"
    return join(title, f"Default of {system_links(users)}.", key_table(rows))


# Grids.


GRIDS = """\
# Grids

`jmarl transfer grid=<name>` evaluates runs in all environments of a grid: see [Change the team
size](../../how-to/transfer.md#evaluate-over-a-grid-of-teams)."""
GRID_FILES = """\
## Grid files

A grid is a YAML file in `configs/grid`, or any file that ends in `.yaml`."""


def grids_page() -> str:
    """Return the page of all grids."""
    return join(
        GRIDS,
        table(("grid", "environments", "number"), grid_rows()),
        GRID_FILES,
        table(HEADER, grid_keys()),
        *map(grid_section, yaml_names("grid")),
    )


def grid_rows() -> Iterator[tuple[str, str, str]]:
    """Yield name, description and size of each grid."""
    for name in yaml_names("grid"):
        grid = read_grid(name)
        yield f"[`{name}`](#{name})", grid.title, str(grid.size)


def grid_keys() -> Iterator[tuple[str, str, str, str]]:
    """Yield the cells of each key of a grid file."""
    meanings, kinds = attribute_docs(Grid), typing.get_type_hints(Grid)
    missing = dataclasses.MISSING
    for field in dataclasses.fields(Grid):
        key = field.name
        if key != "name":  # of the file
            needed = field.default is missing and field.default_factory is missing
            meaning = meanings[key].replace("``", "`").rstrip(".")
            default = "required" if needed else "none"
            yield code(key), type_text(kinds[key]), default, meaning


def grid_section(name: str) -> str:
    """Return the section of one grid, with its file."""
    text = (configs_dir() / "grid" / f"{name}.yaml").read_text(encoding="utf-8")
    return join(f"## `{name}` {{ #{name} }}", fence(text.rstrip(), "yaml"))


# Text.


def key_table(rows: Iterable[Row]) -> str:
    """Return a table of keys; a missing meaning stays visible."""
    return table(HEADER, map(cells, rows))


def cells(row: Row) -> tuple[str, str, str, str]:
    """Return the cells of a row."""
    default = code(row.default) if row.default else "none"
    return code(row.key), row.type, default, row.meaning or "-"


def system_links(names: Iterable[str]) -> str:
    """Return links to the pages of some systems."""
    return ", ".join(f"[`{name}`]({name}.md)" for name in names)


def yaml_comment(group: str, choice: str) -> str:
    """Return the comment at the top of a yaml file, as Markdown."""
    text = (configs_dir() / group / f"{choice}.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("# @")]
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line[2:])
    return "\n".join(comment)
