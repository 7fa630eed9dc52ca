"""What every update path keeps, whichever system it belongs to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.config import ConfigError
from jmarl.learning.exploration import greedy
from jmarl.networks.actor_critic import AgentNet
from jmarl.networks.mixers import make_mixer
from jmarl.systems.kits import q_learning as value
from jmarl.training.anakin import device_mesh, init_runner, rollout
from jmarl.training.build import build_run
from jmarl.training.train import seed_programs


SMALL = {
    "mlp": ("network=mlp", "network.torso=[8]"),
    "gru": (
        "network=gru",
        "network.torso=[8]",
        "network.memory_width=8",
        "network.head=[8]",
    ),
    "ssm": (
        "network=ssm",
        "network.torso=[8]",
        "network.memory_width=8",
        "network.head=[8]",
    ),
    "hpn": ("network.memory_width=8", "network.hyper_width=8"),
    "mat": ("network.embed_dim=8",),
    "mam": ("network.embed_dim=8", "network.d_state=4"),
    "rec_mam": ("network.embed_dim=8", "network.d_state=4"),
    "sable": ("network.embed_dim=8",),
    "rec_sable": ("network.embed_dim=8",),
}
PPO = [
    ("ippo", "mlp"),
    ("ippo", "ssm"),
    ("mappo", "gru"),
    ("hpn_mappo", "hpn"),
    ("mat_ppo", "mat"),
    ("mam_ppo", "mam"),
    ("rec_mam", "rec_mam"),
    ("sable", "sable"),
    ("rec_sable", "rec_sable"),
]
VALUE = [
    ("vdn", "gru"),
    ("pqn_vdn", "ssm"),
    ("qmix", "gru"),
    ("pqn_qmix", "mlp"),
    ("qplex", "mlp"),
]
PHASE = ("system.minibatches=1", "system.epochs=2")
REPLAY = ("system.batch_size=8", "system.gradient_steps=2", "system.replay_size=112")


def over(cases):
    return pytest.mark.parametrize(
        ("name", "size"), cases, ids=["-".join(c) for c in cases]
    )


cases = over(PPO + VALUE)


@functools.cache
def learned(name, size):
    """A system on a world with deaths and hidden information, its rollout, and the learner before and after."""
    words = [
        "env=probe_death",
        "num_envs=8",
        "rollout_length=7",
        *(REPLAY if name in ("vdn", "qmix", "qplex") else PHASE),
    ]
    # Large steps, because some gradients are tiny behind heads that start near zero.
    cfg = jmarl.load_config(name, [*words, "system.lr=0.1", *SMALL[size]])
    _, env, system = build_run(cfg)

    def run(key):
        runner = init_runner(env, system, 8, key)
        after, experience, _ = rollout(env, system, runner, cfg.rollout_length, key)
        learner, metrics = system.update(after.learner, experience, key)
        return runner, experience, learner, metrics

    compiled = jax.jit(run)
    return env, system, compiled(jax.random.key(0)), compiled(jax.random.key(0))


@cases
def test_an_update_is_finite_and_moves_every_parameter(name, size):
    _, _, (runner, _, learner, metrics), _ = learned(name, size)
    for metric in jax.tree.leaves(metrics):
        assert jnp.isfinite(metric).all()
    before = jax.tree.leaves_with_path(runner.learner.params)
    for (path, old), new in zip(before, jax.tree.leaves(learner.params), strict=True):
        assert jnp.isfinite(new).all(), path
        assert (old != new).any(), jax.tree_util.keystr(path)


@over(PPO)
def test_what_was_acted_is_what_is_learnt(name, size):
    """The ratio of PPO is 1 at the first minibatch: peers that shuffle, or reset memory elsewhere, fail here."""
    _, _, (_, _, _, metrics), _ = learned(name, size)
    assert float(metrics["ratio_error"]) < 1e-4


@over(VALUE)
def test_greedy_actions_are_those_of_the_values_that_are_learnt(name, size):
    """Memory carried from step to step, and unrolled over the rows of a sequence, is the same."""
    env, system, (runner, *_), _ = learned(name, size)
    cfg = jmarl.load_config(name, ["env=probe_death", "num_envs=8", *SMALL[size]])
    net = value.QNetwork(
        AgentNet(env.spec, cfg.network),
        make_mixer(env.spec, cfg.system.mixer),
        env.spec,
    )
    strict = system._replace(explore=jnp.zeros_like)

    @jax.jit
    def both(runner, key):
        _, experience, _ = rollout(env, strict, runner, 13, key)
        steps = value.steps_of(experience)
        q = net.unroll(runner.learner.params, experience.carry, steps)
        return greedy(q, steps.obs.avail)[:-1], experience.steps.action

    unrolled, acted = both(runner, jax.random.key(1))
    np.testing.assert_array_equal(unrolled, acted)
    assert len(np.unique(acted)) > 1


@cases
def test_the_same_key_gives_the_same_result(name, size):
    _, _, once, again = learned(name, size)
    for a, b in zip(
        jax.tree.leaves(once[2].params), jax.tree.leaves(again[2].params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@cases
def test_memory_is_not_read_where_an_episode_begins(name, size):
    _, system, (runner, experience, _, _), _ = learned(name, size)
    params, timestep = runner.learner.params, runner.timestep
    dirty = jax.tree.map(lambda x: x + 1.0, experience.carry)
    key, greedy = jax.random.key(1), jnp.zeros(())
    act = jax.jit(system.act)
    clean = act(params, system.carry(8), timestep, key, greedy)
    for a, b in zip(
        jax.tree.leaves(clean),
        jax.tree.leaves(act(params, dirty, timestep, key, greedy)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@cases
def test_greedy_ignores_the_key_and_sampling_does_not(name, size):
    _, system, (runner, _, _, _), _ = learned(name, size)
    act = jax.jit(system.act)
    params, carry, timestep = runner.learner.params, system.carry(8), runner.timestep
    draw = [
        [
            act(params, carry, timestep, jax.random.key(k), jnp.float32(e))[0]
            for k in range(4)
        ]
        for e in (0, 1)
    ]
    assert all((a == draw[0][0]).all() for a in draw[0])
    assert any((a != draw[1][0]).any() for a in draw[1])


@cases
def test_only_available_actions_are_taken(name, size):
    _, _, (_, experience, _, _), _ = learned(name, size)
    steps = experience.steps
    taken = jnp.take_along_axis(steps.obs.avail, steps.action[..., None], axis=-1)
    assert taken.all()


NARROW = ["mpe_spread", "mpe_spread_continuous", "smax_1v1"]
ON_FOUR = [
    (4, *case, env)
    for case in [("ippo", "gru"), ("mappo", "mlp"), ("mam_ppo", "mam")]
    for env in NARROW
]
ON_ONE = [(1, "mappo", "mlp", "mpe_spread"), (1, "ippo", "ssm", "smax_1v1")]
ON_ONE += [
    (1, "hpn_mappo", "hpn", env) for env in ("mpe_spread_continuous", "smax_1v1")
]


@pytest.mark.parametrize(("devices", "name", "size", "env"), ON_FOUR + ON_ONE)
def test_a_world_may_lack_features_or_entities(devices, name, size, env):
    """No global features, and no other ally: leaves without elements pass through the whole of training."""
    words = [
        f"env={env}",
        "num_envs=16",
        "rollout_length=4",
        "system.minibatches=2",
        "arch.updates_per_chunk=1",
    ]
    cfg = jmarl.load_config(name, [*words, *SMALL[size]])
    init, chunk, evaluation = seed_programs(build_run(cfg))
    runner = jax.eval_shape(init, jax.random.key(0))
    with jax.set_mesh(device_mesh(jax.devices()[:devices])):
        after, metrics = jax.eval_shape(chunk, runner)
        jax.eval_shape(evaluation, runner.learner.params, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), runner
    )
    assert all(x.shape == () for x in jax.tree.leaves(metrics))


@pytest.mark.parametrize(("name", "size"), [("ippo", "mlp"), ("pqn_vdn", "mlp")])
def test_what_an_absent_agent_did_changes_nothing_that_is_learnt(name, size):
    words = [
        "env=smax_1v2+2v1",
        "num_envs=16",
        "rollout_length=8",
        *PHASE,
        *SMALL[size],
    ]
    cfg = jmarl.load_config(name, words)
    _, env, system = build_run(cfg)
    runner = init_runner(env, system, 16, jax.random.key(0))
    _, experience, _ = jax.jit(lambda r: rollout(env, system, r, 8, jax.random.key(1)))(
        runner
    )
    absent = ~experience.steps.obs.present
    assert absent.any() and not absent.all()
    other = jnp.where(
        absent, 1 - experience.steps.action.clip(0, 1), experience.steps.action
    )
    changed = experience.replace(steps=experience.steps.replace(action=other))
    update = jax.jit(
        lambda rows: system.update(runner.learner, rows, jax.random.key(2))[0].params
    )
    for x, y in zip(
        *(jax.tree.leaves(update(rows)) for rows in (experience, changed)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["mat_ppo", "mam_ppo", "sable"])
def test_a_system_that_reads_agents_in_a_row_refuses_teams_of_several_sizes(name):
    with pytest.raises(
        ConfigError, match=r"^env=smax_1v2\+2v1: its teams have several sizes"
    ):
        build_run(jmarl.load_config(name, ["env=smax_1v2+2v1"]))
