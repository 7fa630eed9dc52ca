"""Arguments of the command line reach Hydra as they were meant."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from contextlib import nullcontext

import pytest

from jmarl.config import ConfigError, RunConfig, build
from jmarl.config.accepted import accepted_networks, network_tree
from jmarl.config.choices import systems, yaml_names
from jmarl.config.compose import load_config
from jmarl.config.overrides import TEXT_KEYS, to_hydra_overrides
from jmarl.config.yaml_files import files_of, merge


PATHS = [
    "a b",
    " a",
    "a(b)[c]{d}",
    "it's",
    '"quoted" inside "it\'s"',
    "a,b",
    "a=b",
    "a:b",
    "a\\",
    "a\\'b",
    "ü/ñ",
    "~/x",
    "#x&y;z*?",
    "3",
    "true",
    "1e3",
    "$HOME",
    "-x",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_written(path: str) -> None:
    assert load_config("ippo", [f"run_dir=x/{path}"]).run_dir == f"x/{path}"


@pytest.mark.parametrize("path", ["a b", "3", "true", "ü"])
def test_a_path_without_a_slash_is_taken_as_written(path: str) -> None:
    assert load_config("ippo", [f"run_dir={path}"]).run_dir == path


def test_keys_inside_a_path_are_replaced() -> None:
    config = load_config("ippo", ["run_dir=my runs/${seed} of ${env.name}", "seed=3"])
    assert config.run_dir == "my runs/3 of smax_3m"


def test_commas_separate_the_paths_of_a_sweep() -> None:
    swept = to_hydra_overrides("ippo", ["-m", "init_from=,a b,${oc.env:HOME,x}/c"])
    assert swept[-1] == "++init_from='','a b','${oc.env:HOME,x}/c'"
    assert to_hydra_overrides("ippo", ["init_from=a,b"])[-1] == "++init_from='a,b'"


def test_the_keys_of_text_are_those_of_the_schema() -> None:
    assert sorted(TEXT_KEYS) == sorted(text_keys(RunConfig))


def text_keys(cls: type, path: str = "") -> list[str]:
    hints = typing.get_type_hints(cls)
    hints.pop("system_name", None)
    nested = [k for k, kind in hints.items() if dataclasses.is_dataclass(kind)]
    below = [key for k in nested for key in text_keys(hints[k], f"{path}{k}.")]
    return [f"{path}{k}" for k, kind in hints.items() if kind is str] + below


@pytest.mark.parametrize("system", systems())
def test_accepted_networks_are_those_that_the_system_can_build(system: str) -> None:
    network = importlib.import_module(f"jmarl.systems.{system}").Network
    accepted = accepted_networks(system)
    assert accepted
    for name in yaml_names("network"):
        expected = nullcontext() if name in accepted else pytest.raises(ConfigError)
        with expected:
            build(network, network_tree(name), "network")


@pytest.mark.parametrize(
    ("system", "networks"),
    [
        ("mam_ppo", ["mam", "rec_mam"]),
        ("mat_ppo", ["mat"]),
        ("mappo", ["gru", "hpn", "mlp", "saqa", "ssm", "updet"]),
        ("ippo", ["gru", "hpn", "mlp", "saqa", "ssm", "updet"]),
        ("vdn", ["gru", "hpn", "mlp", "saqa", "ssm", "updet"]),
    ],
)
def test_the_networks_of_a_system(system: str, networks: list[str]) -> None:
    assert accepted_networks(system) == networks


def test_a_network_that_does_not_fit_is_named_with_those_that_do() -> None:
    message = "network=gru: does not fit mam_ppo; it takes mam or rec_mam"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        load_config("mam_ppo", ["network=gru"])


def test_files_are_merged_in_the_order_of_their_defaults_lists() -> None:
    choices: dict[str, str | None] = {"system": "rec_mam"}
    files = [file.path for file in files_of("run", choices)]
    assert files[0] == "run"
    order = ["network/mam", "network/rec_mam", "system/_ppo", "system/rec_mam"]
    assert [file for file in files if file in order] == order
    assert choices["network"] == "rec_mam"
    assert merge(files_of("network/gru", {}))["network"]["memory"] == "gru"
