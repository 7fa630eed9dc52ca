"""Systems that are only YAML files, and the agents and mixers that value systems combine."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys

import jax
import pytest

import jmarl
from jmarl.config import ConfigError
from jmarl.config.choices import algorithm_of, summary, systems
from jmarl.runs.folder import open_folder
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


VARIANTS = [name for name in systems() if algorithm_of(name) != name]


def module_of(name):
    return importlib.import_module(f"jmarl.systems.{name}")


@pytest.mark.parametrize("name", systems())
def test_a_system_has_the_names_of_its_algorithm(name):
    module, algorithm = module_of(name), module_of(algorithm_of(name))
    assert module.__name__ == f"jmarl.systems.{name}"
    for attribute in ("Config", "Network", "make"):
        assert getattr(module, attribute) is getattr(algorithm, attribute)


@pytest.mark.parametrize("name", systems())
def test_a_summary_is_a_sentence(name):
    text = summary(name)
    assert text.endswith(".") and ": " in text
    assert len(text) <= 110


def test_variants_and_algorithms_are_told_apart():
    assert {"rec_mam", "rec_sable", "hpn_qmix", "spectra_qmix_plus"} <= set(VARIANTS)
    assert not {"mam_ppo", "sable", "qmix"} & set(VARIANTS)


@pytest.mark.parametrize("name", ["nothing", "_ppo", "qmix.nothing"])
def test_other_names_are_no_modules(name):
    with pytest.raises(ModuleNotFoundError):
        module_of(name)


def test_importing_the_systems_takes_neither_jax_nor_hydra():
    code = (
        "import sys, jmarl.systems.rec_mam; "
        "assert not {'jax', 'hydra', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_variant_is_started_by_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = jmarl.load_config("rec_mam")
    assert (config.system_name, config.network.memory) == ("rec_mam", True)
    assert open_folder(config).parts[:2] == ("runs", "rec_mam")
    command = [sys.executable, "-m", "jmarl.systems.rec_mam", "--cfg", "job"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "algorithm: mam_ppo" in printed
    with pytest.raises(ConfigError, match="jmarl train rec_mam"):
        jmarl.load_config("mam_ppo", ["system=rec_mam"])


NAMES = {
    "vdn": ("NetworkConfig", "SumConfig"),
    "qmix": ("NetworkConfig", "QMIXConfig"),
    "qplex": ("NetworkConfig", "QPLEXConfig"),
    "pqn_vdn": ("NetworkConfig", "SumConfig"),
    "pqn_qmix": ("NetworkConfig", "QMIXConfig"),
    "hpn_vdn": ("HPNConfig", "SumConfig"),
    "hpn_qmix": ("HPNConfig", "QMIXConfig"),
    "hpn_qplex": ("HPNConfig", "QPLEXConfig"),
    "updet_vdn": ("UPDeTConfig", "SumConfig"),
    "updet_qmix": ("UPDeTConfig", "QMIXConfig"),
    "spectra_vdn": ("SAQAConfig", "SumConfig"),
    "spectra_qmix": ("SAQAConfig", "QMIXConfig"),
    "spectra_qmix_plus": ("SAQAConfig", "STHyperNetConfig"),
}
ANY_SIZE = {"hpn_vdn", "updet_vdn", "spectra_vdn", "spectra_qmix_plus"}


@functools.cache
def shapes(name, env_name):
    """Of the parameters before and after an update, traced and not compiled."""
    words = [f"env={env_name}", "num_envs=8", "rollout_length=4", "total_timesteps=32"]
    replayed = name not in ("pqn_vdn", "pqn_qmix")
    words += (
        ["system.batch_size=8", "system.replay_size=64"]
        if replayed
        else ["system.minibatches=1"]
    )
    config = jmarl.load_config(name, words)
    _, env, system = build_run(config)

    def run(key):
        runner = init_runner(env, system, 8, key)
        after, experience, _ = rollout(env, system, runner, 4, key)
        learner, metrics = system.update(after.learner, experience, key)
        return runner.learner, learner, metrics

    before, after, metrics = jax.eval_shape(run, jax.random.key(0))
    kinds = type(config.network).__name__, type(config.system.mixer).__name__
    return kinds, before, after, metrics


@pytest.mark.parametrize("name", NAMES)
def test_it_has_its_agent_and_mixer_and_an_update_keeps_the_shape_of_a_learner(name):
    kinds, before, after, metrics = shapes(name, "smax_3m")
    assert kinds == NAMES[name]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )
    assert all(x.shape == () for x in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_fit_any_team_where_agent_and_mixer_do(name):
    small, large = (
        jax.tree.map(lambda x: x.shape, shapes(name, env_name)[1].params)
        for env_name in ("smax_3m", "smax_5m_vs_6m")
    )
    assert (small == large) == (name in ANY_SIZE)
