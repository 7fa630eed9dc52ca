"""Properties of acting and learning that hold for every system."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from documented import columns

import jmarl
from jmarl.config import ConfigError
from jmarl.learning.exploration import greedy
from jmarl.networks.agents import make_agent
from jmarl.networks.mixers import make_mixer
from jmarl.systems.kits.cgi import make_agent_with_cgi, value_term
from jmarl.systems.kits.q_learning import QNetwork, steps_of
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
    "hpn": ("network=hpn", "network.memory_width=8", "network.hyper_width=8"),
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
    ("u_mappo", "gru"),
    ("happo", "mlp"),
    ("happo", "hpn"),
    ("shppo", "gru"),
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
    ("u_qmix", "gru"),
    ("u_vdn", "mlp"),
    ("pqn_u_qmix", "mlp"),
]
CGI = ("u_mappo", "u_qmix", "u_vdn", "pqn_u_qmix")
"""Systems that need several action groups."""
OWN_METRICS = {"shppo": {"SHPPO"}, **{name: {"CGI"} for name in CGI}}
"""Tables of metrics that a system has besides those of its kit."""
WITH_REPLAY = ("vdn", "qmix", "qplex", "u_vdn", "u_qmix")
PHASE = ("system.minibatches=1", "system.epochs=2")
REPLAY = ("system.batch_size=8", "system.gradient_steps=2", "system.replay_size=112")


SLOW = [
    ("ippo", "ssm"),
    ("happo", "mlp"),
    ("mat_ppo", "mat"),
    ("rec_mam", "rec_mam"),
    ("sable", "sable"),
    ("pqn_qmix", "mlp"),
    ("u_vdn", "mlp"),
    ("pqn_u_qmix", "mlp"),
]
"""Cases that share their code with two others, so that only a release tests them."""


def over(cases):
    parameters = [
        pytest.param(
            *case,
            marks=[pytest.mark.slow] if case in SLOW else [],
            id="-".join(case),
        )
        for case in cases
    ]
    return pytest.mark.parametrize(("name", "size"), parameters)


def env_of(name):
    return "probe_classes" if name in CGI else "probe_death"


over_all_systems = over(PPO + VALUE)


def assert_trees_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@functools.cache
def learned(name, size):
    """Train one update in an environment with deaths and hidden information.

    Returns:
        The environment, the system, and the results of two equal calls: the runner before,
        the experience, the learner after, and the metrics.
    """
    sizes = ("num_envs=8", "rollout_length=7", *SMALL[size])
    options = REPLAY if name in WITH_REPLAY else PHASE
    # The learning rate is large, because gradients are tiny behind heads near zero.
    overrides = [f"env={env_of(name)}", "system.lr=0.1", *sizes, *options]
    cfg = jmarl.load_config(name, overrides)
    _, env, system = build_run(cfg)

    def run(key):
        runner = init_runner(env, system, 8, key)
        after, experience, _ = rollout(env, system, runner, cfg.rollout_length, key)
        learner, metrics = system.update(after.learner, experience, key)
        return runner, experience, learner, metrics

    compiled = jax.jit(run)
    first = compiled(jax.random.key(0))
    second = compiled(jax.random.key(0))
    return env, system, first, second


@over_all_systems
def test_an_update_is_finite_and_moves_every_parameter(name, size):
    _, _, (runner, _, learner, metrics), _ = learned(name, size)
    for metric in jax.tree.leaves(metrics):
        assert jnp.isfinite(metric).all()
    before = jax.tree.leaves_with_path(runner.learner.params)
    for (path, old), new in zip(before, jax.tree.leaves(learner.params), strict=True):
        assert jnp.isfinite(new).all(), path
        assert (old != new).any(), jax.tree_util.keystr(path)


@over_all_systems
def test_the_reference_documents_exactly_the_metrics_of_learning(name, size):
    _, _, (_, _, _, metrics), _ = learned(name, size)
    of_a_run = {"episodes", "steps_per_second", "agent_steps_per_second"}
    of_a_run |= {"return", "length", "won"}
    kit = "PPO" if (name, size) in PPO else "Q-learning"
    tables = {"all systems", kit} | OWN_METRICS.get(name, set())
    documented = {
        column
        for column, row in columns().items()
        if row.systems in tables and row.rows == "train"
    }
    assert set(metrics) == documented - of_a_run


@over(PPO)
def test_learning_recomputes_the_probabilities_of_acting(name, size):
    """PPO's ratio is 1 in the first minibatch.

    A different order of agents, or a different reset of memory, fails here.
    """
    _, _, (_, _, _, metrics), _ = learned(name, size)
    assert float(metrics["ratio_error"]) < 1e-4


@over(VALUE)
def test_greedy_actions_maximize_the_learned_values(name, size):
    """Memory carried from step to step equals memory unrolled over a sequence."""
    env, system, (runner, *_), _ = learned(name, size)
    words = [f"env={env_of(name)}", "num_envs=8", *SMALL[size]]
    cfg = jmarl.load_config(name, words)
    agent = make_agent(env.spec, cfg.network)
    if name in CGI:
        agent = make_agent_with_cgi(env.spec, cfg, value_term)[0]
    mixer = make_mixer(env.spec, cfg.system.mixer)
    net = QNetwork(agent, mixer, env.spec)
    greedy_system = system._replace(explore=jnp.zeros_like)

    @jax.jit
    def unroll_and_act(runner, key):
        _, experience, _ = rollout(env, greedy_system, runner, 13, key)
        steps = steps_of(experience, cfg.system)
        q, _ = net.unroll(runner.learner.params, experience.carry, steps)
        return greedy(q, steps.obs.avail)[:-1], experience.steps.action

    unrolled, acted = unroll_and_act(runner, jax.random.key(1))
    np.testing.assert_array_equal(unrolled, acted)
    assert len(np.unique(acted)) > 1


@over_all_systems
def test_the_same_key_gives_the_same_result(name, size):
    _, _, (_, _, first, _), (_, _, second, _) = learned(name, size)
    assert_trees_equal(first.params, second.params)


@over_all_systems
def test_memory_is_not_read_at_the_start_of_an_episode(name, size):
    _, system, (runner, experience, _, _), _ = learned(name, size)
    params, timestep = runner.learner.params, runner.timestep
    other_carry = jax.tree.map(lambda x: x + 1.0, experience.carry)
    key, explore = jax.random.key(1), jnp.zeros(())
    act = jax.jit(system.act)
    expected = act(params, system.carry(8), timestep, key, explore)
    actual = act(params, other_carry, timestep, key, explore)
    assert_trees_equal(expected, actual)


@over_all_systems
def test_greedy_actions_do_not_depend_on_the_key_and_sampled_ones_do(name, size):
    _, system, (runner, _, _, _), _ = learned(name, size)
    params, carry, timestep = runner.learner.params, system.carry(8), runner.timestep
    act = jax.jit(system.act)

    def actions(explore):
        keys = [jax.random.key(k) for k in range(4)]
        return [act(params, carry, timestep, key, explore)[0] for key in keys]

    greedy_actions = actions(jnp.float32(0))
    sampled_actions = actions(jnp.float32(1))
    assert all((a == greedy_actions[0]).all() for a in greedy_actions)
    assert any((a != sampled_actions[0]).any() for a in sampled_actions)


@over_all_systems
def test_only_available_actions_are_taken(name, size):
    _, _, (_, experience, _, _), _ = learned(name, size)
    steps = experience.steps
    taken = jnp.take_along_axis(steps.obs.avail, steps.action[..., None], axis=-1)
    assert taken.all()


NARROW = ["mpe_spread", "mpe_spread_continuous", "smax_1v1"]
ON_FOUR = [
    (4, *case, env)
    for case in [
        ("ippo", "gru"),
        ("mappo", "mlp"),
        ("shppo", "mlp"),
        ("mam_ppo", "mam"),
    ]
    for env in NARROW
]
ON_ONE = [(1, "mappo", "mlp", "mpe_spread"), (1, "ippo", "ssm", "smax_1v1")]
ON_ONE += [
    (1, "hpn_mappo", "hpn", env) for env in ("mpe_spread_continuous", "smax_1v1")
]


@pytest.mark.parametrize(("devices", "name", "size", "env"), ON_FOUR + ON_ONE)
def test_an_environment_may_lack_features_or_entities(devices, name, size, env):
    """Environments without global features or without other allies have empty leaves."""
    sizes = ("num_envs=16", "rollout_length=4", "system.minibatches=2", *SMALL[size])
    overrides = [f"env={env}", "arch.updates_per_chunk=1", *sizes]
    init, chunk, evaluate = seed_programs(build_run(jmarl.load_config(name, overrides)))
    runner = jax.eval_shape(init, jax.random.key(0))
    with jax.set_mesh(device_mesh(jax.devices()[:devices])):
        after, metrics = jax.eval_shape(chunk, runner, 1)
        jax.eval_shape(evaluate, runner.learner.params, jax.random.key(0))

    def shapes_and_dtypes(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert shapes_and_dtypes(after) == shapes_and_dtypes(runner)
    assert all(x.shape == () for x in jax.tree.leaves(metrics))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("ippo", "mlp", marks=pytest.mark.slow),
        pytest.param("happo", "mlp", marks=pytest.mark.slow),
        ("pqn_vdn", "mlp"),
    ],
)
def test_actions_of_absent_agents_do_not_change_learning(name, size):
    sizes = ("num_envs=16", "rollout_length=8", *SMALL[size])
    cfg = jmarl.load_config(name, ["env=smax_1v2+2v1", *PHASE, *sizes])
    _, env, system = build_run(cfg)
    runner = init_runner(env, system, 16, jax.random.key(0))

    @jax.jit
    def collect(runner):
        _, experience, _ = rollout(env, system, runner, 8, jax.random.key(1))
        return experience

    @jax.jit
    def update(experience):
        learner, _ = system.update(runner.learner, experience, jax.random.key(2))
        return learner.params

    experience = collect(runner)
    steps = experience.steps
    absent = ~steps.obs.present
    assert absent.any() and not absent.all()
    action = jnp.where(absent, 1 - steps.action.clip(0, 1), steps.action)
    changed = experience.replace(steps=steps.replace(action=action))
    assert_trees_equal(update(experience), update(changed))


@pytest.mark.parametrize("name", ["mat_ppo", "mam_ppo", "sable"])
def test_sequence_policies_reject_teams_of_several_sizes(name):
    config = jmarl.load_config(name, ["env=smax_1v2+2v1"])
    message = r"^env=smax_1v2\+2v1: its teams have several sizes"
    with pytest.raises(ConfigError, match=message):
        build_run(config)
