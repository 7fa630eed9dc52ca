"""The generated reference has every key, command, exit code and module."""

import functools
import importlib
import pathlib
import pkgutil
import re
from dataclasses import fields

import jax
import pytest
import toy

import jmarl
from docs.generate import api, commands, configuration, schema
from docs.generate.site import generated
from jmarl.cli.commands import COMMANDS
from jmarl.config import RunConfig, key_paths
from jmarl.config.choices import systems, yaml_names
from jmarl.config.reference import documented_keys
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.grid_file import Grid


@functools.cache
def pages():
    return dict(configuration.pages())


def keys_on(*names):
    text = "".join(pages()[f"reference/configuration/{name}.md"] for name in names)
    return set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize("system", systems())
def test_every_key_of_a_system_has_a_row(system):
    module = importlib.import_module(f"jmarl.systems.{system}")
    keys = set(key_paths(RunConfig)) - {"system_name", "system", "network", "env"}
    keys |= {*key_paths(module.Config, "system"), *key_paths(module.Network, "network")}
    shown = keys_on("index", "networks", "mixers", system)
    assert keys | set(documented_keys(system)) <= shown


@pytest.mark.parametrize("system", systems())
def test_every_row_of_a_system_has_type_default_and_meaning(system):
    for row in configuration.system_rows(system):
        assert row.type and row.default and row.meaning, row


def test_every_shared_row_has_type_and_meaning():
    for row in configuration.shared_rows():
        assert row.type and row.meaning, row


def test_every_network_has_a_section():
    text = pages()["reference/configuration/networks.md"]
    assert re.findall(r"^## `(\w+)`", text, re.MULTILINE) == yaml_names("network")


def test_every_grid_and_every_key_of_a_grid_file_is_listed():
    text = pages()["reference/configuration/grids.md"]
    assert re.findall(r"^## `(\w+)`", text, re.MULTILINE) == yaml_names("grid")
    assert keys_on("grids") == {field.name for field in fields(Grid)} - {"name"}
    assert "| 12 |" in text, "battle_small has 4 x 3 environments"


def test_types_are_in_words():
    types = schema.system_types("mam_ppo") | schema.run_types()
    assert types["network.delta_rank"] == "int or null"
    assert types["network.bi_mode"] == "`sum` or `mam`"
    assert types["system.anneal_lr"] == "true or false"
    assert types["curriculum.stages"] == "list of groups"
    assert types["curriculum.stages.fraction"] == "float"


def test_every_command_has_a_section_with_its_help():
    text = commands.commands_page()
    for name, command in COMMANDS.items():
        assert f"## `{name}`" in text
        assert command.help.rstrip() in text
        assert command.summary and "usage:" not in command.summary


def test_every_exit_code_has_a_meaning():
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \| (.*) \|$", commands.exit_codes_page(), re.MULTILINE
    )
    assert [(int(code), name) for code, name, _ in rows] == [
        (int(code), code.name) for code in ExitCode
    ]
    assert "-" not in [meaning for _, _, meaning in rows]
    assert [int(code) for code, _, _ in rows] == [0, 1, 2, 3, 4, 75, 130, 141]


def test_exit_codes_are_listed_on_one_page():
    root = pathlib.Path(__file__).parents[2]
    written = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    texts = {str(page): page.read_text(encoding="utf-8") for page in written}
    texts |= dict(generated())
    listed = re.compile(r"^\| *`?(?:75|130|141)`? *\|", re.MULTILINE)
    pages = [name for name, text in texts.items() if listed.search(text)]
    assert pages == ["reference/exit-codes.md"]


def test_every_public_module_has_one_directive():
    text = "\n".join(text for _, text in api.pages())
    shown = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    found = [m.name for m in pkgutil.walk_packages(jmarl.__path__, "jmarl.")]
    public = [name for name in found if not re.search(r"\._", name)]
    assert sorted(shown) == sorted([*public, "jmarl"])


@pytest.mark.parametrize("name", api.ENTRY_POINTS)
def test_an_entry_point_is_listed_and_its_result_is_in_the_reference(name):
    assert name in dir(jmarl)
    assert f'"{name}"' in dict(api.pages())[api.path_of("jmarl")]
    assert "Returns:\n" in getattr(jmarl, name).__doc__


def test_the_documented_shapes_of_training_are_those_of_its_result():
    toy.install()
    config = toy.config(total_timesteps=7 * 64)
    _, metrics = jax.eval_shape(lambda key: jmarl.train(config, key), jax.random.key(0))
    found = re.findall(
        r"""``metrics\["(\w+)"\][^`]*``: ``(\w+)\[([\w, ]+)\]``""", jmarl.train.__doc__
    )
    schedule = config.schedule
    sizes = {
        "chunks": len(schedule.chunks(0, schedule.num_updates)),
        "evaluations": schedule.num_evaluations + 1,
        "episodes": config.eval.episodes,
    }
    assert [name for name, _, _ in found] == ["train", "episodes", "nonfinite", "eval"]
    assert metrics.keys() == {name for name, _, _ in found}
    for name, dtype, axes in found:
        shape = tuple(sizes[axis] for axis in axes.split(", "))
        leaves = jax.tree.leaves(metrics[name])
        assert {(leaf.shape, str(leaf.dtype)) for leaf in leaves} == {(shape, dtype)}


def test_packages_follow_their_parent():
    names = api.packages()
    assert names[0] == "jmarl"
    assert names.index("jmarl.networks") < names.index("jmarl.networks.agents")
    assert all(pathlib.Path(api.folder(name)).is_dir() for name in names)
