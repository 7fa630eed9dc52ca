"""U-MAPPO and U-QMIX: gradients of the CGI loss, devices, arms of sharing, and errors."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jmarl
from jmarl.config import ConfigError
from jmarl.learning.parallel import mean_weights
from jmarl.networks.agents import make_agent
from jmarl.system import NO_TERMS, init_parts
from jmarl.systems.kits.cgi import make_agent_with_cgi, policy_term, value_term
from jmarl.systems.kits.ppo import Weights
from jmarl.training.anakin import device_mesh, init_runner, rollout
from jmarl.training.build import build_run
from jmarl.training.compatibility import check_acting
from jmarl.training.stages import build_stages


SMALL = (
    "num_envs=8",
    "rollout_length=5",
    "network.torso=[8]",
    "network.memory_width=8",
    "network.head=[]",
    "system.cgi.width=8",
)
PHASE = ("system.minibatches=2", "system.epochs=1")
REPLAY = ("system.batch_size=8", "system.gradient_steps=1", "system.replay_size=80")
FORMS = {"u_mappo": policy_term, "u_qmix": value_term}


def load(name, *words, env="probe_classes"):
    options = REPLAY if name in ("u_qmix", "u_vdn", "qmix") else PHASE
    return jmarl.load_config(name, [f"env={env}", *SMALL, *options, *words])


@functools.cache
def experience_of(name):
    """Return the environment and a rollout of the untrained system."""
    cfg = load(name)
    _, env, system = build_run(cfg)

    @jax.jit
    def collect(key):
        runner = init_runner(env, system, cfg.num_envs, key)
        return rollout(env, system, runner, cfg.rollout_length, key)[1]

    return env, collect(jax.random.key(0))


def gradient_sizes(name, *words):
    """Return the largest gradient of predictor, trunk and output layer, of the CGI loss alone."""
    env, experience = experience_of(name)
    net, added = make_agent_with_cgi(env.spec, load(name, *words), FORMS[name])
    (term,) = added.terms
    steps = experience.steps
    carry = net.initial(steps.valid.shape[1])
    params = init_parts(added.parts, jax.random.key(2))
    params["agent"] = net.init(jax.random.key(1), carry, steps.obs, steps.first)

    def loss(params):
        _, _, aux = net.apply(params["agent"], carry, steps.obs, steps.first)
        if name == "u_mappo":
            weights = Weights(None, None, mean_weights(steps.valid))
            return term(params, aux, SimpleNamespace(steps=steps), weights)[0]
        return term(params, aux, steps, mean_weights(steps.valid[:-1]))[0]

    grads = jax.jit(jax.grad(loss))(params)
    parts = {"predictor": grads["predictor"], **grads["agent"]["params"]["net"]}
    return {
        part: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(parts[part]))
        for part in ("predictor", "trunk", "out")
    }


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("words", "moved"),
    [
        ((), {"predictor", "trunk"}),
        (("system.cgi.grad_to_trunk=false",), {"predictor"}),
        (("system.cgi.sg_target=false",), {"predictor", "trunk", "out"}),
        (("system.cgi.conditioned=false",), {"predictor", "trunk"}),
    ],
)
def test_the_gradient_reaches_the_predictor_and_what_the_flags_allow(
    name, words, moved
):
    sizes = gradient_sizes(name, *words)
    assert {part for part, size in sizes.items() if size > 0} == moved


@pytest.mark.parametrize(
    "name", ["u_mappo", pytest.param("u_qmix", marks=pytest.mark.slow)]
)
def test_four_devices_give_the_losses_of_one(name):
    cfg = load(name, "system.lr=1e-4", "network.layer_norm=false", "num_envs=16")
    _, env, system = build_run(cfg)
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = device_mesh(devices)

        def learn(runner, key):
            after, experience, _ = rollout(env, system, runner, 5, key)
            return system.update(after.learner, experience, key)[1]

        runner = init_runner(env, system, 16, jax.random.key(0))
        with jax.set_mesh(mesh):
            results.append(jax.jit(learn)(runner, jax.random.key(1)))
    assert results[0]["cgi_loss"] > 0
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("name", "network", "share"),
    [
        ("u_mappo", "gru", "heads"),
        ("qmix", "gru", "nets"),
        pytest.param("u_qmix", "hpn", "nets", marks=pytest.mark.slow),
        pytest.param("mappo", "updet", "heads", marks=pytest.mark.slow),
    ],
)
def test_an_update_moves_the_parameters_of_all_groups(name, network, share):
    words = [f"network={network}", f"network.share={share}", "system.lr=0.1"]
    cfg = jmarl.load_config(
        name,
        ["env=probe_classes", *SMALL[:2], *words, *(REPLAY if "q" in name else PHASE)],
    )
    _, env, system = build_run(cfg)

    @jax.jit
    def learn(key):
        runner = init_runner(env, system, cfg.num_envs, key)
        after, experience, _ = rollout(env, system, runner, cfg.rollout_length, key)
        learner, metrics = system.update(after.learner, experience, key)
        return runner.learner.params, learner.params, metrics

    before, after, metrics = learn(jax.random.key(0))
    assert all(jnp.isfinite(x) for x in metrics.values())
    of_groups = 0
    pairs = zip(flatten_dict(before).items(), flatten_dict(after).values(), strict=True)
    for (path, old), new in pairs:
        if "groups" in path:
            of_groups += 1
            assert all((old[k] != new[k]).any() for k in range(2)), path
    assert of_groups


def test_without_weight_there_is_no_predictor():
    cfg = load("u_mappo", "system.cgi.weight=0", env="smax_3m")
    (stage,) = build_stages(cfg)
    found = make_agent_with_cgi(stage.env.spec, cfg, policy_term)
    assert found == (make_agent(stage.env.spec, cfg.network), NO_TERMS)
    learner = jax.eval_shape(stage.system.init, jax.random.key(0))
    assert set(learner.params) == {"actor", "critic"}


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("smax_3m", r"^system.cgi.weight=0.1: all units of env=smax_3m have the same"),
        ("probe_target", r"^system.cgi.weight=0.1: env=probe_target has continuous"),
    ],
)
def test_training_needs_another_group_to_predict(env, message):
    with pytest.raises(ConfigError, match=message):
        build_stages(load("u_mappo", env=env))


@pytest.mark.parametrize("name", ["u_mappo", "u_vdn"])
def test_parameters_of_entity_networks_can_act_in_teams_of_any_size(name):
    """Even in a team of one action group, in which nothing could be predicted."""
    words = ["network=hpn", *SMALL[:2], "system.cgi.width=8"]
    words += ["system.critic_input=entities"] if name == "u_mappo" else []

    def build(env, *more):
        return build_run(jmarl.load_config(name, [f"env={env}", *words, *more]))

    own = build("smac_3m1d_vs_4m")
    for env in ("smac_2m1d_vs_3m", "smac_3m_vs_4m"):
        check_acting("env", env, build(env, "env.heal_actions=true"), own)


def test_a_weight_is_not_negative():
    with pytest.raises(ConfigError, match=r"^system.cgi.weight=-0.1: "):
        load("u_mappo", "system.cgi.weight=-0.1")
