"""The tasks of papers: each composes; those of MAM also train two updates and evaluate."""

import jax
import pytest

import jmarl
from jmarl.config.choices import yaml_names


EXPERIMENTS = yaml_names("experiment")
BATTLES = [name for name in EXPERIMENTS if name.startswith("smac")]
PRESETS = [name for name in EXPERIMENTS if name.startswith("football")]
TASKS = [name for name in EXPERIMENTS if name not in (*BATTLES, *PRESETS)]
VALUE_SYSTEMS = ("hpn_qmix", "updet_qmix", "spectra_qmix_plus", "qmix")
TINY = [
    "num_seeds=1",
    "num_envs=8",
    "rollout_length=2",
    "total_timesteps=32",
    "eval.every=32",
    "eval.episodes=2",
    "system.minibatches=1",
    "system.epochs=1",
    "network.embed_dim=8",
    "network.d_state=2",
]


def test_there_are_21_tasks():
    assert len(TASKS) == 21


def test_hpn_has_10_hard_maps_and_each_race_4_sizes():
    assert sum(name.startswith("smac_") for name in BATTLES) == 10
    assert sum(name.startswith("smacv2_") for name in BATTLES) == 3 * 4


@pytest.mark.parametrize("task", BATTLES)
def test_a_battle_composes_for_the_value_family(task):
    for system in VALUE_SYSTEMS if task == "smac_MMM2" else VALUE_SYSTEMS[:1]:
        config = jmarl.load_config(system, [f"experiment={task}", "arch=cpu"])
        assert config.env["name"] == task and config.total_timesteps == 10_000_000
        assert config.env.get("heal_actions", False) == task.startswith("smacv2_")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_composes(task):
    config = jmarl.load_config("mam_ppo", [f"experiment={task}", *TINY])
    assert config.env["name"] == task and config.num_updates == 2


FOOTBALL = {
    "football_ppo": ("mappo", "mam_ppo", "shppo", "happo"),
    "football_3_vs_1_ppo": ("mappo", "shppo"),
    "football_pqn": ("pqn_vdn",),
}


def test_football_presets_fit_their_systems():
    assert sorted(PRESETS) == sorted(FOOTBALL)
    for preset, systems in FOOTBALL.items():
        for system in systems:
            words = [f"experiment={preset}", "env=football_corner"]
            env = jmarl.load_config(system, words).env
            assert (env["name"], env["reward"]) == ("football_corner", "checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_and_evaluates(task):
    config = jmarl.load_config("mam_ppo", [f"experiment={task}", *TINY])
    runner, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    assert 0 < int(runner.env_steps) <= 32
    assert jax.numpy.isfinite(metrics["train"]["loss"]).all()
    assert metrics["eval"]["greedy"]["return"].shape == (2, 2)


def test_the_protocol_is_that_of_the_paper():
    config = jmarl.load_config("mam_ppo", ["experiment=jumanji_rware_tiny-2ag"])
    assert config.env["name"] == "jumanji_rware_tiny-2ag"
    assert (config.total_timesteps, config.num_seeds, config.eval.episodes) == (
        20_000_000,
        10,
        32,
    )
    assert config.schedule.num_evaluations == 122
