"""yaml and overrides become the configuration of a run, for every system; errors come before any compilation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import pytest

from jmarl.cli.help import default_choices, default_keys
from jmarl.config import ConfigError
from jmarl.config import hardware as arch
from jmarl.config.choices import configs_dir, systems, variants, yaml_names
from jmarl.config.compose import from_tree, load_config, prepare


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
def test_help_shows_the_keys_and_defaults_that_compose(system: str) -> None:
    from omegaconf import OmegaConf

    shown = OmegaConf.from_dotlist(
        [f"{key}={entry.value}" for key, entry in default_keys(system).items()]
    )
    tree: Any = OmegaConf.to_container(shown)
    composed: Any = _composed(system)
    name = composed.pop("env")["name"]
    assert name == default_choices(system)["env"]
    assert tree == composed


def _composed(system: str) -> Any:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("run", overrides=prepare(system, [])))


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


def test_choices_and_flags_pass_and_values_are_forced() -> None:
    given = [
        "-m",
        "env=smax_5v5,smax_40v40",
        "seed=0,1",
        "hydra.verbose=true",
        "+x=1",
        "~y",
        "network=gru",
    ]
    expected = [
        "-m",
        "env=smax_5v5,smax_40v40",
        "++seed=0,1",
        "hydra.verbose=true",
        "+x=1",
        "~y",
        "network=gru",
    ]
    assert prepare(SYSTEM, given) == [f"system={SYSTEM}", *expected]
    assert prepare(SYSTEM, [f"system={SYSTEM}"]) == [f"system={SYSTEM}"]


BAD = [
    ("system.gamma=1.5", "system.gamma=1.5: must lie in [0, 1]"),
    ("system.lr=-1", "system.lr=-1.0: must be greater than 0 and finite"),
    ("system.lrr=3", "system.lrr=3: unknown key; the nearest valid one is system.lr"),
    ("gama=0.9", "gama=0.9: unknown key; the nearest valid one is system.gamma"),
    ("+gama=0.9", "gama=0.9: unknown key; the nearest valid one is system.gamma"),
    ("enb=smax_3m", "enb='smax_3m': unknown key; the nearest valid one is env"),
    ("seed=a", "seed='a': expected int"),
    ("seed=-1", "seed=-1: must lie in [0, 4.29497e+09]"),
    ("num_envs=12", "num_envs=12: must be a multiple of 8"),
    ("num_envs=x", "num_envs='x': expected int"),
    ("num_envs=0", "num_envs=0: must be at least 1"),
    ("system.minibatches=0", "system.minibatches=0: must be at least 1"),
    ("rollout_length=0", "rollout_length=0: must be at least 1"),
    ("eval.every=10", "eval.every=10: must be at least the"),
    ("eval=3", "eval=3: expected a group of keys"),
    ("eval.episodes=0", "eval.episodes=0: must be at least 1"),
    ("checkpoint.keep=0", "checkpoint.keep=0: must be at least 1"),
    ("arch.updates_per_chunk=0", "arch.updates_per_chunk=0: must be at least 1"),
    (
        "arch.name=cpux",
        "arch.name='cpux': must be one of auto, cpu, gpu, tpu; the nearest is cpu",
    ),
    (
        "logger.wandb_mode=of",
        "logger.wandb_mode='of': must be one of online, offline, disabled",
    ),
    (
        "env=smax_10v11x",
        "env=smax_10v11x: unknown environment 'smax_10v11x'; nearest: smax_10v10",
    ),
    ("env.name=foo", "env=foo: unknown environment 'foo'"),
    ("env.reset_pol=2", "env=smax_3m: smax_3m has no option 'reset_pol'"),
    ("network=gruu", "network=gruu: no such choice; the nearest is gru"),
    ("system=mappo", "system=mappo: no variant of mat_ppo; the nearest is mat_ppo"),
    ("~network", "network=None: expected a group of keys"),
    ("env.name=3", "env.name=3: must be a name"),
    ("env.name=[1]", "env.name=[1]: must be a name"),
    ("~env.name", "env.name=None: must be a name"),
    ("env=smax_2000v2000", "env=smax_2000v2000: "),
    ("seed=4294967296", "seed=4294967296: must lie in"),
    ("arch.num_envs=abc", "arch.num_envs='abc': expected int"),
    ("arch.num_envs=0", "arch.num_envs=0: must be at least 1"),
    ("arch.num_envs=-64", "arch.num_envs=-64: must be at least 1"),
    ("arch.minibatches=abc", "arch.minibatches='abc': expected int"),
    ("arch.minibatches=0", "arch.minibatches=0: must be at least 1"),
    ("~total_timesteps", "total_timesteps: missing; give it a value"),
    ("~rollout_length", "rollout_length: missing; give it a value"),
    ("~arch.name", "arch.name: missing; give it a value"),
    ("~eval.episodes", "eval.episodes: missing; give it a value"),
    ("=3", "=3: names no key"),
    ("resume=x", "resume='x': continues a run as it is"),
    ("++resume=x", "resume='x': continues a run as it is"),
    ("seed=[", "seed=[: cannot be read"),
    ("seed=${x}", "Interpolation key 'x' not found"),
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


def test_the_last_seed_is_a_seed() -> None:
    assert load_config(SYSTEM, ["seed=4294967293", "num_seeds=3"]).num_seeds == 3
    with pytest.raises(ConfigError, match="with num_seeds=4 the last seed is beyond"):
        load_config(SYSTEM, ["seed=4294967293", "num_seeds=4"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system_name": "nothing"}, "system_name='nothing': no such system"),
        ({"system_name": 3}, "system_name=3: no such system"),
        ({"system_name": "ppo_kit.none"}, "system_name='ppo_kit.none': no such system"),
        ({"network": None}, "network=None: expected a group of keys"),
    ],
)
def test_plain_data_of_no_system_is_one_line(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(dataclasses.asdict(load_config(SYSTEM)) | changes)
    assert str(caught.value).startswith(message)


def test_a_world_that_cannot_be_built_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jmarl.envs import registry

    def broken(name: str, **_: Any) -> Any:
        raise KeyError("a\nb")

    monkeypatch.setattr(registry, "make", broken)
    with pytest.raises(ConfigError) as caught:
        load_config(SYSTEM)
    assert str(caught.value).startswith("env=smax_3m: KeyError: ")
    assert "\n" not in str(caught.value)


def test_a_variant_belongs_to_the_module_it_builds_on(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(configs_dir(), tmp_path / "configs")
    text = "# @package _global_\ndefaults:\n  - mat_ppo\n  - _self_\nsystem:\n  clip: 0.05\n"
    (tmp_path / "configs" / "system" / "mat_ppo_small_clip.yaml").write_text(text)
    for module in ("config.choices", "config.compose", "config.hardware", "cli.help"):
        monkeypatch.setattr(f"jmarl.{module}.configs_dir", lambda: tmp_path / "configs")
    assert variants("mat_ppo") == ["mat_ppo", "mat_ppo_small_clip"]
    assert load_config("mat_ppo", ["system=mat_ppo_small_clip"]).system.clip == 0.05


def tree(
    num_envs: int | None, minibatches: int | None, name: str = "auto"
) -> dict[str, Any]:
    sizes = {"num_envs": None, "minibatches": None, "updates_per_chunk": None}
    run = {
        "num_envs": num_envs,
        "rollout_length": 10,
        "total_timesteps": 100_000,
        "eval": {"every": None},
    }
    return {
        **run,
        "arch": {"name": name, **sizes},
        "system": {"minibatches": minibatches},
    }


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("num_envs", [None, 8, 24, 64, 1000])
@pytest.mark.parametrize("minibatches", [None, 1, 3, 7])
@pytest.mark.parametrize("lanes", [8, 24])
def test_arch_keeps_what_is_given_and_fits_the_rest(
    platform: str, num_envs: int | None, minibatches: int | None, lanes: int
) -> None:
    after, picked = arch.resolve(tree(num_envs, minibatches), platform, lanes)
    got = after["num_envs"], after["system"]["minibatches"]
    assert (num_envs in (None, got[0])) and (minibatches in (None, got[1]))
    if None in (num_envs, minibatches) and (num_envs or lanes) % lanes == 0:
        assert got[0] % (lanes * got[1]) == 0
    assert after["arch"] == {
        "name": platform,
        "updates_per_chunk": after["arch"]["updates_per_chunk"],
    }
    assert f"arch.name={platform}" in picked
    assert (f"num_envs={got[0]}" in picked) == (num_envs is None)


def test_an_arch_that_is_named_needs_no_such_device() -> None:
    gpu, _ = arch.resolve(tree(None, None, "gpu"), "cpu", 8)
    cpu, _ = arch.resolve(tree(None, None), "cpu", 8)
    assert gpu["num_envs"] > cpu["num_envs"]


def test_auto_is_the_platform_that_jax_found() -> None:
    assert load_config(SYSTEM).arch.name == jax.default_backend()
