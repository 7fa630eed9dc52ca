"""Every value system has the agent and the mixer of its name, and fits other team sizes or does not."""

from __future__ import annotations

import functools

import jax
import pytest

import jmarl
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.train import assemble


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
def shapes(name, world):
    """Of the parameters before and after an update, traced and not compiled."""
    words = [f"env={world}", "num_envs=8", "rollout_length=4", "total_timesteps=32"]
    replayed = name not in ("pqn_vdn", "pqn_qmix")
    words += (
        ["system.batch_size=8", "system.replay_size=64"]
        if replayed
        else ["system.minibatches=1"]
    )
    config = jmarl.load_config(name, words)
    env, system = assemble(config)

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
        jax.tree.map(lambda x: x.shape, shapes(name, world)[1].params)
        for world in ("smax_3m", "smax_5m_vs_6m")
    )
    assert (small == large) == (name in ANY_SIZE)
