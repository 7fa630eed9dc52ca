"""YAML files and overrides become the configuration of a run, or an error of one line."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import jmarl.systems
from jmarl.config import ConfigError, RunConfig, hardware, key_paths
from jmarl.config.choices import algorithm_of, configs_dir, systems, yaml_names
from jmarl.config.compose import from_tree, load_config, to_hydra_overrides
from jmarl.config.reference import documented_keys, read_reference
from jmarl.training.build import build_env


SYSTEM = "mat_ppo"


@pytest.mark.parametrize("system", systems())
def test_every_system_composes_and_survives_a_round_trip(system: str) -> None:
    config = load_config(system, ["arch=cpu"])
    assert config.system_name == system
    assert from_tree(dataclasses.asdict(config)) == config


@pytest.mark.parametrize("system", systems())
@pytest.mark.parametrize("name", ["cpu", "gpu", "tpu"])
def test_the_sizes_of_every_arch_suit_every_system(system: str, name: str) -> None:
    assert load_config(system, [f"arch={name}"]).arch.name == name


@pytest.mark.parametrize("logger", yaml_names("logger"))
def test_every_logger_composes(logger: str) -> None:
    load_config(SYSTEM, [f"logger={logger}"])


@pytest.mark.parametrize("system", systems())
def test_the_reference_has_the_keys_and_defaults_that_compose(system: str) -> None:
    from omegaconf import OmegaConf

    choices, keys = read_reference(system)
    assert keys == documented_keys(system)
    shown = OmegaConf.from_dotlist([f"{k}={doc.default}" for k, doc in keys.items()])
    composed = _compose(system)
    assert OmegaConf.to_container(shown) == composed
    assert choices["arch"] == composed["arch"]["name"] == "auto"
    assert choices["network"] in yaml_names("network")


def _compose(system: str) -> Any:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        composed: Any = compose("run", overrides=to_hydra_overrides(system, []))
    tree: Any = OmegaConf.to_container(composed)
    assert tree.pop("algorithm") == algorithm_of(system)
    return tree


@pytest.fixture(scope="module")
def meanings() -> dict[str, dict[str, str]]:
    """Meanings of the keys of every system, and of the keys of every network."""
    everywhere = {s: documented_keys(s) for s in systems()}
    for network in yaml_names("network"):
        everywhere[network] = documented_keys("qmix", [f"network={network}"])
    return {
        name: {key: doc.meaning for key, doc in docs.items()}
        for name, docs in everywhere.items()
    }


UNDOCUMENTED = {"system_name", "curriculum.stages.env", "curriculum.stages.fraction"}
"""The name of the command, and parts of a list, which is documented as a whole."""


@pytest.mark.parametrize("system", systems())
def test_every_key_of_the_schema_has_a_meaning(
    system: str, meanings: dict[str, dict[str, str]]
) -> None:
    module = _import_system(system)
    field_types = {"system": module.Config, "network": module.Network}
    keys = set(key_paths(RunConfig, field_types=field_types)) - UNDOCUMENTED
    keys = (keys - {"env"}) | {"env.name"}
    known = {key: text for texts in meanings.values() for key, text in texts.items()}
    known |= meanings[system]
    assert [key for key in sorted(keys) if not known.get(key)] == []
    assert [key for key, text in meanings[system].items() if not text] == []


def _import_system(name: str) -> Any:
    return importlib.import_module(f"jmarl.systems.{name}")


def test_the_reference_follows_overrides() -> None:
    docs = documented_keys("qmix", ["network=hpn", "seed=3"])
    assert docs["network.hyper_width"].default == "64"
    assert docs["seed"].default == "3"
    assert "network.torso" not in docs


def test_the_reference_reads_like_the_yaml_files() -> None:
    docs = documented_keys("mam_ppo")
    assert list(docs)[:2] == ["env.name", "seed"]
    assert docs["total_timesteps"].default == "2_000_000"
    assert docs["system.gamma"] == ("0.99", "discount")
    assert (docs["num_envs"].default, docs["run_dir"].default) == ("null", "''")


def test_overrides_and_choices_are_followed() -> None:
    config = load_config(
        "mappo",
        [
            "env=smax_40v40",
            "env.reset_pool=2",
            "network=gru",
            "total_timesteps=1e6",
            "seed=7",
        ],
    )
    assert config.env == {"name": "smax_40v40", "reset_pool": 2}
    assert config.network.memory == "gru"
    assert (config.total_timesteps, config.seed) == (1_000_000, 7)


def test_values_are_forced_and_choices_flags_and_deletions_are_kept() -> None:
    given = {
        "-m": "-m",
        "env=smax_5v5,smax_40v40": "++env.name=smax_5v5,smax_40v40",
        "env.reset_pool=2": "++env.reset_pool=2",
        "seed=0,1": "++seed=0,1",
        "hydra.verbose=true": "hydra.verbose=true",
        "+x=1": "++x=1",
        "~y": "~y",
        "network=mat": "network=mat",
        "run_dir=a b": "++run_dir='a b'",
        "experiment=glob(rware*)": "experiment=glob(rware*)",
    }
    translated = to_hydra_overrides(SYSTEM, given)
    assert translated == [f"system={SYSTEM}", *given.values()]


def test_a_group_of_keys_can_be_replaced() -> None:
    mixer = "+system.mixer={name: sum, mask_dead: true}"
    replaced = load_config("qmix", ["~system.mixer", mixer]).system.mixer
    assert replaced == load_config("vdn").system.mixer


BAD = [
    ("system.gamma=1.5", "system.gamma=1.5: must lie in [0, 1]"),
    ("system.lr=-1", "system.lr=-1.0: must be greater than 0 and finite"),
    ("system.lrr=3", "system.lrr=3: unknown key; did you mean system.lr?"),
    ("gama=0.9", "gama=0.9: unknown key; did you mean system.gamma?"),
    ("+gama=0.9", "gama=0.9: unknown key; did you mean system.gamma?"),
    ("enb=smax_3m", "enb='smax_3m': unknown key; did you mean env?"),
    ("seed=a", "seed='a': expected int"),
    ("seed=-1", "seed=-1: must be at least 0"),
    ("num_envs=x", "num_envs='x': expected int"),
    ("num_envs=0", "num_envs=0: must be at least 1"),
    ("system.minibatches=0", "system.minibatches=0: must be at least 1"),
    ("rollout_length=0", "rollout_length=0: must be at least 1"),
    ("eval.every=10", "eval.every=10: must be at least the"),
    ("eval=3", "eval=3: expected a group of keys"),
    ("eval.episodes=0", "eval.episodes=0: must be at least 1"),
    ("checkpoint.keep=0", "checkpoint.keep=0: must be at least 1"),
    ("arch.updates_per_chunk=0", "arch.updates_per_chunk=0: must be at least 1"),
    ("arch.compile_effort=2", "arch.compile_effort=2.0: must lie in [-1, 1]"),
    (
        "arch.name=cpux",
        "arch.name='cpux': must be one of auto, cpu, gpu, tpu; did you mean cpu?",
    ),
    (
        "logger.wandb_mode=of",
        "logger.wandb_mode='of': must be one of online, offline, disabled",
    ),
    ("network=gru", "network=gru: does not fit mat_ppo; it takes mat"),
    ("network=matt", "network=matt: unknown network; did you mean mat?"),
    ("network=gruu", "network=gruu: unknown network; it takes mat"),
    ("arch=cpux", "arch=cpux: unknown choice; did you mean cpu?"),
    ("system=mappo", "system=mappo: cannot be overridden; start that system with: "),
    ("++system=mat_ppo", "++system=mat_ppo: cannot be overridden; start that system"),
    ("algorithm=mappo", "algorithm=mappo: cannot be overridden; start that system"),
    ("~network", "network.embed_dim: missing; give it a value"),
    ("~arch", "arch.name: missing; give it a value"),
    ("arch=[]", "arch=: unknown choice; choices: auto, cpu"),
    ("network=3", "network=3: unknown network; it takes mat"),
    ("network=", "network=: unknown network; it takes mat"),
    ("env.name=3", "env.name=3: must be a name"),
    ("env.name=[1]", "env.name=[1]: must be a name"),
    ("~env.name", "env.name=None: must be a name; use env=<name>"),
    ("seed=4294967296", "seed=4294967296: must be at most 4294967295"),
    ("arch.num_envs=abc", "arch.num_envs='abc': expected int"),
    ("arch.num_envs=0", "arch.num_envs=0: must be at least 1"),
    ("arch.num_envs=-64", "arch.num_envs=-64: must be at least 1"),
    ("arch.minibatches=2", "arch.minibatches=2: unknown key"),
    ("system.minibatch_rows=abc", "system.minibatch_rows='abc': expected int"),
    ("system.minibatch_rows=0", "system.minibatch_rows=0: must be at least 1"),
    ("rollout_rows=0", "rollout_rows=0: must be at least 1"),
    ("seed=auto", "seed='auto': expected int"),
    (f"rollout_length={10**400}", "rollout_length=1"),
    ("~total_timesteps", "total_timesteps: missing; give it a value"),
    ("~rollout_rows", "rollout_rows: missing; give it a value"),
    ("~arch.name", "arch.name: missing; give it a value"),
    ("~eval.episodes", "eval.episodes: missing; give it a value"),
    ("=3", "='3': names no key"),
    ("resume=x", "resume='x': keeps its configuration"),
    ("++resume=x", "resume='x': keeps its configuration"),
    ("seed=[", "seed=[: cannot be read"),
    ("seed=${x}", "seed=${x}: Interpolation key 'x' not found; ${...} must name"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_a_bad_override_is_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            SYSTEM,
            ["num_envs=64", override] if "num_envs" not in override else [override],
        )
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


BAD_ENV = [
    (
        "env=smax_10v11x",
        "env=smax_10v11x: unknown environment 'smax_10v11x'; did you mean smax_10v10",
    ),
    ("env.name=foo", "env=foo: unknown environment 'foo'"),
    ("env.reset_pol=2", "env=smax_3m: smax_3m has no option 'reset_pol'"),
    ("env=smax_2000v2000", "env=smax_2000v2000: "),
]


@pytest.mark.parametrize(("override", "message"), BAD_ENV)
def test_an_environment_that_cannot_be_built_is_one_line(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_env(load_config(SYSTEM, [override]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_system_is_one_line() -> None:
    message = "system=mamppo: unknown system; did you mean mam_ppo?"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_config("mamppo")
    message = "system=nosuch: unknown system; `jmarl systems` lists the known ones"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_config("nosuch")


def test_the_last_seed_is_a_seed() -> None:
    assert load_config(SYSTEM, ["seed=4294967293", "num_seeds=3"]).num_seeds == 3
    with pytest.raises(ConfigError, match="with num_seeds=4 the last seed exceeds"):
        load_config(SYSTEM, ["seed=4294967293", "num_seeds=4"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"system_name": "nothing"},
            "system_name='nothing': unknown system; `jmarl systems`",
        ),
        ({"system_name": 3}, "system_name=3: unknown system"),
        ({"system_name": "kits"}, "system_name='kits': unknown system"),
        ({"system_name": "_variant"}, "system_name='_variant': unknown system"),
        ({"system_name": "kits.none"}, "system_name='kits.none': unknown system"),
        ({"network": None}, "network=None: expected a group of keys"),
    ],
)
def test_plain_data_of_no_system_is_one_line(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(dataclasses.asdict(load_config(SYSTEM)) | changes)
    assert str(caught.value).startswith(message)


def test_an_unexpected_error_of_an_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jmarl.envs import registry

    def broken(name: str, **_: Any) -> Any:
        raise KeyError("a\nb")

    monkeypatch.setattr(registry, "make", broken)
    with pytest.raises(ConfigError) as caught:
        build_env(load_config(SYSTEM))
    assert str(caught.value).startswith("env=smax_3m: KeyError: ")
    assert "\n" not in str(caught.value)


def test_a_yaml_file_makes_a_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(configs_dir(), tmp_path / "configs")
    text = """\
# @package _global_
# MAT with a narrow clipping range.
defaults:
  - mat_ppo
  - _self_

algorithm: mat_ppo

system:
  clip: 0.05
"""
    (tmp_path / "configs" / "system" / "mat_narrow.yaml").write_text(text)
    for module in ("choices", "compose", "hardware"):
        folder = f"jmarl.config.{module}.configs_dir"
        monkeypatch.setattr(folder, lambda: tmp_path / "configs")
    config = load_config("mat_narrow")
    assert (config.system_name, config.system.clip) == ("mat_narrow", 0.05)
    assert type(config.system) is _import_system("mat_ppo").Config
    assert "mat_narrow" in systems()
    monkeypatch.delitem(sys.modules, "jmarl.systems.mat_narrow")
    monkeypatch.delattr(jmarl.systems, "mat_narrow")


def tree(
    num_envs: int | None, minibatches: int | None, name: str = "auto"
) -> dict[str, Any]:
    sizes = {"num_envs": None, "updates_per_chunk": None}
    run = {
        "num_envs": num_envs,
        "rollout_rows": 640,
        "rollout_length": 10,
        "total_timesteps": 100_000,
        "eval": {"every": None},
    }
    return {
        **run,
        "arch": {"name": name, **sizes},
        "system": {"minibatches": minibatches, "minibatch_rows": 160},
    }


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("num_envs", [None, 1, 3, 4, 8, 12, 24, 64, 100, 1000])
@pytest.mark.parametrize("minibatches", [None, 1, 3, 7])
@pytest.mark.parametrize("shards", [8, 24])
def test_arch_keeps_what_is_given_and_fits_the_rest(
    platform: str, num_envs: int | None, minibatches: int | None, shards: int
) -> None:
    after = tree(num_envs, minibatches)
    chosen = hardware.fill_sizes(after, platform, shards)
    got = after["num_envs"], after["system"]["minibatches"]
    assert (num_envs in (None, got[0])) and (minibatches in (None, got[1]))
    if num_envs is None:
        assert got[0] % (shards * got[1]) == 0
    if None in (num_envs, minibatches):  # any number of environments can run
        assert got[0] % got[1] == 0
    assert "rollout_rows" not in after
    updates = after["arch"]["updates_per_chunk"]
    assert after["arch"] == {"name": platform, "updates_per_chunk": updates}
    assert after["eval"]["every"] == max(5_000, 10 * got[0])
    assert chosen["arch.name"] == platform
    assert chosen.get("num_envs") == (got[0] if num_envs is None else None)


def test_an_arch_that_is_named_needs_no_such_device() -> None:
    gpu, cpu = tree(None, None, "gpu"), tree(None, None)
    hardware.fill_sizes(gpu, "cpu", 8)
    hardware.fill_sizes(cpu, "cpu", 8)
    assert gpu["num_envs"] > cpu["num_envs"]


def test_auto_is_the_platform_that_jax_found() -> None:
    assert load_config(SYSTEM).arch.name == jax.default_backend()
