"""HAPPO: equality with PPO for one agent, the compound ratio M, and its independence of N."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import subjaxprs

import jmarl
from jmarl.config import ConfigError
from jmarl.envs.probes import make as make_probe
from jmarl.learning.normalizer import init_stats
from jmarl.learning.optimizers import optimizer
from jmarl.networks.actor_critic import NetworkConfig, Policy
from jmarl.networks.agents import make_agent
from jmarl.networks.separate_policies import SeparatePolicies
from jmarl.systems import happo, mappo
from jmarl.systems.kits.ppo import (
    loss_weights,
    make_batch,
    masked_mean,
    policy_loss,
)
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run
from jmarl.training.compatibility import check_acting, check_fit


ENVS, ROWS, AGENTS = 2, 7, 3
COMMON = dict(
    lr=1e-2,
    anneal_lr=False,
    adam_eps=1e-5,
    weight_decay=0.0,
    max_grad_norm=0.5,
    gamma=0.9,
    reward_scale=1.0,
    gae_lambda=0.8,
    clip=0.2,
    epochs=2,
    minibatch_rows=28,
    minibatches=2,
    entropy_coef=0.01,
    value_coef=0.5,
    value_clip=0.2,
    huber_delta=10.0,
    value_memory=1000,
    popart=False,
    mask_dead_values=False,
    advantage="joint",
    critic_input="state",
)


def network(memory="none"):
    return NetworkConfig(
        torso=(8,),
        memory=memory,
        memory_width=8,
        head=(),
        activation="tanh",
        layer_norm=False,
        agent_id=False,
    )


def make(module, spec, memory="none", **changes):
    hyper = COMMON | changes
    if module is happo:
        hyper = {"fixed_order": False} | hyper
    run = SimpleNamespace(
        system=module.Config(**hyper), network=network(memory), num_updates=10
    )
    return module.make(spec, run)


def collect(env, system, key, rollouts=1):
    """Return a learner and the last of some rollouts of its policy."""
    runner = init_runner(env, system, ENVS, key)
    for _ in range(rollouts):
        runner, experience, _ = rollout(env, system, runner, ROWS, key)
    return runner.learner, experience


def stack_agent(tree):
    """Return the parameters of a policy as those of one separate policy."""
    stacked = jax.tree.map(lambda x: x[None], tree["params"])
    return {"params": {"policy": stacked}}


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize(
    ("probe", "memory", "changes"),
    [
        ("probe_target", "none", dict(popart=True)),
        pytest.param(
            "probe_cue", "gru", dict(advantage="per_agent"), marks=pytest.mark.slow
        ),
    ],
)
def test_one_agent_learns_as_ppo(probe, memory, changes):
    """PPO is MAPPO of the same networks, parameters and minibatches."""
    env = make_probe(probe, n_agents=1)
    ppo, system = (make(m, env.spec, memory, **changes) for m in (mappo, happo))

    @jax.jit
    def learn(key):
        learner, experience = collect(env, ppo, key)
        params = learner.params | {"actor": stack_agent(learner.params["actor"])}
        actor = jax.tree.map(lambda x: x[:, :, None], experience.carry.actor)
        own = experience.replace(carry=experience.carry._replace(actor=actor))
        start = system.init(key).replace(params=params)
        expected, expected_metrics = ppo.update(learner, experience, key)
        expected_actor = stack_agent(expected.params["actor"])
        after, metrics = system.update(start, own, key)
        expected_params = expected.params | {"actor": expected_actor}
        return (after.params, metrics), (expected_params, expected_metrics), params

    (params, metrics), (expected, expected_metrics), start = learn(jax.random.key(1))
    assert_close(params, expected, atol=1e-6)
    assert_close(metrics, expected_metrics, atol=1e-5, rtol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, start)
    assert min(jax.tree.leaves(moved)) > 1e-3


class Case(NamedTuple):
    """Experience of a policy, and the parts of a system that updates the agents."""

    actors: Any
    policy: Any
    params: Any
    batch: Any
    carry: Any
    cfg: Any

    @property
    def tx(self):
        return optimizer(self.cfg, 10)

    def log_probability(self, params):
        """Return the log-probability ``[T, B, N]`` of the stored actions."""
        steps = self.batch.steps
        out = self.actors.apply(params, self.carry, steps.obs, steps.first)
        return out[1].log_prob(steps.extras.sample)

    def update(self, tx, order, batch):
        """Return the trained actors and the results of their turns."""
        turn = happo.make_turn(self.policy, tx, self.cfg, jax.random.key(2))
        start = self.params, jax.vmap(tx.init)(self.params)
        return happo.take_turns(turn, start, batch, self.carry, order)


@functools.cache
def case():
    """Return experience in which two of three agents die, from the middle of an episode."""
    env = make_probe("probe_death", n_agents=AGENTS)
    system = make(happo, env.spec, "gru")
    cfg = happo.Config(**COMMON, fixed_order=True)

    @jax.jit
    def prepare(key):
        learner, experience = collect(env, system, key, rollouts=2)
        bootstrap = jnp.zeros((ENVS, AGENTS))
        batch, *_ = make_batch(experience, bootstrap, init_stats(), cfg)
        return learner.params["actor"], batch, experience.carry.actor

    policy = Policy(make_agent(env.spec._replace(n_agents=1), network("gru")), True)
    actors = SeparatePolicies(policy, AGENTS)
    return Case(actors, policy, *prepare(jax.random.key(0)), cfg)


@functools.cache
def turns(kind):
    """Return the trained actors and the results of their turns, in fixed order."""
    of = case()
    batch, tx = of.batch, of.tx
    if kind == "frozen":
        tx = optax.apply_if_finite(optax.set_to_zero(), 5)
    if kind == "second_is_dead":
        steps = batch.steps
        alive = steps.obs.alive.at[..., 1].set(False)
        batch = batch.replace(steps=steps.replace(obs=steps.obs.replace(alive=alive)))
    update = jax.jit(functools.partial(of.update, tx))
    return update(jnp.arange(AGENTS), batch)


def test_without_a_change_of_the_parameters_the_compound_ratio_stays_one():
    (params, _), results = turns("frozen")
    assert_close(params, case().params, atol=0)
    np.testing.assert_allclose(results.compound_ratio, 1.0, atol=1e-5)


def test_the_compound_ratio_is_the_product_of_the_ratios_of_earlier_agents():
    """The second agent's is the first agent's ratio; all are recomputed for all agents at once."""
    of = case()
    (params, _), results = turns("trained")
    log_probability = jax.jit(of.log_probability)
    change = log_probability(params) - log_probability(of.params)
    ratio = np.where(of.batch.policy_mask, np.exp(change), 1.0)
    assert np.abs(ratio - 1).max((0, 1)).min() > 0.01
    entering = np.cumprod(ratio, -1) / ratio
    np.testing.assert_allclose(
        results.compound_ratio, np.moveaxis(entering, -1, 0), rtol=1e-4
    )


def test_dead_agents_and_invalid_rows_leave_the_compound_ratio_unchanged():
    _, results = turns("trained")
    before, after = results.compound_ratio[:-1], results.compound_ratio[1:]
    inactive = ~np.moveaxis(np.asarray(case().batch.policy_mask), -1, 0)[:-1]
    assert inactive.any() and not inactive.all()
    np.testing.assert_array_equal(before[inactive], after[inactive])
    assert (before != after).any()


def test_an_agent_without_a_living_row_is_skipped():
    """It keeps its parameters and optimizer state, and the next agent learns as without it."""
    of = case()
    (params, opt_state), results = turns("second_is_dead")
    start = of.params, jax.jit(jax.vmap(of.tx.init))(of.params)
    for agent, moves in enumerate((True, False, True)):
        pairs = zip(
            jax.tree.leaves((params, opt_state)), jax.tree.leaves(start), strict=True
        )
        same = [bool((a[agent] == b[agent]).all()) for a, b in pairs]
        assert all(same) != moves
    assert results.active.tolist() == [True, False, True]
    np.testing.assert_array_equal(*results.compound_ratio[1:])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_ratio_outside_of_the_minimum_equals_that_inside(sign):
    """M min(r A, clip(r) A) = min(r M A, clip(r) M A), also its gradient."""
    rng = np.random.default_rng(0)
    shape = (4, 5, 1)
    logp, old, entropy = 0.5 * rng.normal(size=(3, *shape)).astype(np.float32)
    advantage = sign * rng.exponential(size=shape).astype(np.float32)
    compound_ratio = rng.exponential(size=shape[:2]).astype(np.float32)
    mask = rng.random(shape) < 0.7
    obs = SimpleNamespace(alive=jnp.asarray(mask), present=jnp.asarray(mask))
    steps = SimpleNamespace(
        valid=jnp.ones(shape[:2], bool),
        obs=obs,
        extras=SimpleNamespace(logp=jnp.asarray(old)),
    )
    cfg = case().cfg
    batch = SimpleNamespace(
        steps=steps,
        policy_mask=jnp.asarray(mask),
        advantage=jnp.asarray(advantage * compound_ratio[..., None]),
    )
    weights = loss_weights(batch, cfg)

    def inside(logp):
        return policy_loss(logp, entropy, batch, weights, cfg)[0]

    def outside(logp):
        ratio = jnp.exp(logp - old)
        clipped = jnp.clip(ratio, 1 - cfg.clip, 1 + cfg.clip)
        gain = jnp.minimum(ratio * advantage, clipped * advantage)
        gain = masked_mean(compound_ratio[..., None] * gain, mask)
        return -gain - cfg.entropy_coef * masked_mean(entropy, mask)

    (a, grad_a), (b, grad_b) = (
        jax.value_and_grad(f)(jnp.asarray(logp)) for f in (inside, outside)
    )
    np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(grad_a, grad_b, rtol=1e-5, atol=1e-7)
    assert (grad_a[mask] == 0).any() and (grad_a != 0).any()


def test_turns_are_in_a_fresh_random_order():
    cfg = case().cfg
    random = SimpleNamespace(fixed_order=False, epochs=cfg.epochs)
    orders = [happo.draw_order(jax.random.key(i), 6, random).tolist() for i in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert happo.draw_order(jax.random.key(0), 6, cfg).tolist() == list(range(6))


def test_joint_advantages_are_normalized_over_the_rows_of_each_agent():
    batch, cfg = case().batch, case().cfg
    advantage = np.asarray(happo.normalized_advantage(batch, cfg))
    for agent in range(AGENTS):
        own = advantage[..., agent][np.asarray(batch.policy_mask)[..., agent]]
        np.testing.assert_allclose([own.mean(), own.std()], [0, 1], atol=1e-3)
    per_agent = SimpleNamespace(advantage="per_agent")
    together = happo.normalized_advantage(batch, per_agent)
    np.testing.assert_allclose(together, batch.advantage, rtol=1e-3, atol=1e-4)


def equations(jaxpr):
    """Return the number of equations of a program, those of inner programs included."""
    inner = [equations(sub) for sub in subjaxprs(jaxpr)]
    return len(jaxpr.eqns) + sum(inner)


def program_sizes(n_agents):
    """Return the numbers of equations of a rollout and of an update."""
    env = make_probe("probe_cue", n_agents=n_agents)
    system = make(happo, env.spec, "gru")

    start = functools.partial(collect, env, system)
    key = jax.random.key(0)
    shapes = jax.eval_shape(start, key)
    programs = jax.make_jaxpr(start)(key), jax.make_jaxpr(system.update)(*shapes, key)
    return [equations(program.jaxpr) for program in programs]


def test_programs_of_3_and_27_agents_are_equally_long():
    """A Python loop over agents would make the compile time proportional to their number."""
    assert program_sizes(3) == program_sizes(27)


HPN = ("network=hpn", "network.memory_width=8", "network.hyper_width=8")
MLP = ("network=mlp", "network.torso=[8]")


@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        ("smax_1v2+2v1", (*HPN, "system.critic_input=entities")),
        pytest.param("mpe_spread_continuous", HPN, marks=pytest.mark.slow),
        pytest.param("mpe_spread_continuous", MLP, marks=pytest.mark.slow),
    ],
)
def test_an_update_of_real_teams_is_finite(env, overrides):
    sizes = ("num_envs=4", "rollout_length=4", "system.minibatches=2")
    run = build_run(jmarl.load_config("happo", [f"env={env}", *sizes, *overrides]))

    @jax.jit
    def train(key):
        runner = init_runner(run.env, run.system, 4, key)
        after, experience, _ = rollout(run.env, run.system, runner, 4, key)
        return runner.learner, *run.system.update(after.learner, experience, key)

    before, after, metrics = train(jax.random.key(0))
    assert all(jnp.isfinite(x) for x in metrics.values())
    assert metrics["ratio_error"] < 1e-4 and metrics["skipped_steps"] == 0
    pairs = zip(
        jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True
    )
    assert any((a != b).any() for a, b in pairs)


def test_parameters_of_another_team_size_are_rejected_with_a_fix():
    def build(env):
        overrides = [f"env={env}", *HPN, "system.critic_input=entities"]
        return build_run(jmarl.load_config("happo", overrides))

    two, three = build("smax_2v2"), build("smax_3v3")
    for key, check in {"envs": check_acting, "init_from": check_fit}.items():
        with pytest.raises(ConfigError) as error:
            check(key, "x", three, two)
        text = str(error.value)
        assert text.startswith(f"{key}=x: parameter params/") and "\n" not in text
        assert text.endswith(
            "each agent has parameters of its own, 3 and 2 agents; "
            "use teams of the same size, or a system whose agents share parameters"
        )
    check_fit("init_from", "x", two, build("smax_2v3"))
