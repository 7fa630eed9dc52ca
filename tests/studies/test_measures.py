"""Measures: gradients and distances against slow twins, and planted series of damage."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jmarl
from jmarl.config import ConfigError
from jmarl.learning.parallel import mean_weights
from jmarl.networks.actor_critic import Policy
from jmarl.saved.evaluate_saved import play
from jmarl.studies.measures import (
    cgi_gradients,
    policy_distance,
    team_changes,
    zero_shot_results,
)
from jmarl.studies.measures.saved_run import SavedRun
from jmarl.systems.kits.cgi import make_agent_with_cgi, policy_term
from jmarl.systems.kits.ppo import Weights
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


SMALL = (
    "num_envs=8",
    "rollout_length=5",
    "network=gru",
    "network.torso=[8]",
    "network.memory_width=8",
    "network.head=[8]",
    "system.minibatches=1",
)


class Untrained(SavedRun):
    """A run with its first parameters."""

    def params(self):
        return [x["params"] for x in self.learners()]

    def learners(self):
        learner = jax.jit(self.built.system.init)(jax.random.key(1))
        return [{"params": learner.params, "value_stats": learner.value_stats}]


def untrained(system, *words):
    config = jmarl.load_config(system, [*SMALL, *words])
    return Untrained(None, build_run(config))


CGI = ("env=probe_classes", "system.cgi.width=8")


def test_the_features_depend_on_the_layers_up_to_the_memory():
    config, env, system = untrained("u_mappo", *CGI).built
    net, added = make_agent_with_cgi(env.spec, config, policy_term)
    policy, (term,) = Policy(net, env.spec.discrete), added.terms
    runner = init_runner(env, system, 8, jax.random.key(0))
    _, experience, _ = rollout(
        env,
        system,
        runner,
        5,
        jax.random.key(1),
    )
    params, steps = runner.learner.params, experience.steps

    def of_cgi(params):
        rows = steps.obs, steps.first
        _, _, aux = policy.apply(
            params["actor"],
            experience.carry.actor,
            *rows,
        )
        weights = Weights(None, None, mean_weights(steps.valid))
        return term(params, aux, type("Batch", (), {"steps": steps}), weights)[0]

    inverse = cgi_gradients.agent(jax.jit(jax.grad(of_cgi))(params))
    features = cgi_gradients.features_gradient(net.net, params, experience.carry, steps)
    flat = {k: np.asarray(x) for k, x in flatten_dict(features).items()}
    trunk = {path for path, x in flat.items() if np.any(x)}
    assert trunk == {p for p in flat if {"torso", "memory"} & set(p)} != set(flat)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    other = jax.tree.map(
        lambda x: jax.random.normal(next(keys), x.shape),
        inverse,
    )
    x, y = (
        np.concatenate([np.ravel(v) for k, v in flatten_dict(g).items() if k in trunk])
        for g in (inverse, other)
    )
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    got = cgi_gradients.trunk_cosine(inverse, other, features)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    same = cgi_gradients.trunk_cosine(inverse, inverse, features)
    np.testing.assert_allclose(same, 1.0, rtol=1e-5)


def test_a_run_has_a_cosine_and_an_error_of_each_ordered_pair():
    options = cgi_gradients.Options(envs=8, steps=5)
    found = cgi_gradients.measure(untrained("u_mappo", *CGI), options)
    pairs = {"cgi_error/0-1", "cgi_error/1-0"}
    assert set(found) == {"gradient_cosine", "cgi_error", *pairs}
    assert -1 <= found["gradient_cosine"][0] <= 1
    low, high = sorted(found[name][0] for name in pairs)
    assert 0 < low <= found["cgi_error"][0] <= high


def test_a_run_without_predictor_has_no_results_and_other_systems_are_an_error():
    options = cgi_gradients.Options()
    without = untrained("u_mappo", CGI[0], "system.cgi.weight=0")
    assert cgi_gradients.measure(without, options) == {}
    with pytest.raises(ConfigError, match=r"^system='mappo': has no CGI loss"):
        cgi_gradients.measure(untrained("mappo", CGI[0]), options)


def test_the_distance_of_planted_policies_is_known():
    first, second = [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]
    distance = policy_distance.total_variation
    assert distance(jnp.array([first, first])) == 0
    assert distance(jnp.array([first, second])) == 1
    np.testing.assert_allclose(
        distance(jnp.array([first, first, second])),
        2 / 3,
    )
    np.testing.assert_allclose(
        distance(jnp.array([[0.75, 0.25], [0.5, 0.5]])),
        0.25,
    )
    assert distance(jnp.array([first])) == 0


def diversity(system, env, *words):
    run = untrained(system, f"env={env}", *words)
    return policy_distance.measure(run, policy_distance.Options(episodes=4))


def test_a_shared_policy_is_diverse_only_if_it_observes_the_class():
    assert diversity("mappo", "probe_xor_hidden")["diversity"][0] < 1e-6
    assert diversity("mappo", "probe_bandit")["diversity"][0] < 1e-6
    assert diversity("mappo", "probe_classes")["diversity"][0] > 1e-5


def test_separate_policies_are_diverse_without_any_observed_difference():
    assert diversity("happo", "probe_xor_hidden")["diversity"][0] > 1e-5


def test_latents_at_their_means_are_equal_for_equal_observations():
    words = "system.encoder_width=8", "system.inference.width=8"
    found = diversity("shppo", "probe_xor_hidden", *words)
    assert found["mean_diversity"][0] < 1e-6 < found["diversity"][0]


def test_all_agents_observe_the_same_and_their_own_class():
    _, env, _ = untrained("mappo", "env=probe_classes").built
    _, first = env.reset(jax.random.key(0), 3)
    steps = jax.tree.map(lambda x: x[None], first)
    shared = policy_distance.shared_observations(steps, env.spec)
    n = env.spec.n_agents
    assert shared.obs.own.shape == (
        1,
        3 * n,
        n,
        env.spec.own_width,
    )
    for b in range(3):
        for k in range(n):
            own = shared.obs.own[0, b * n + k]
            np.testing.assert_array_equal(
                own[:, 2],
                first.obs.own[b, k, 2],
            )
            np.testing.assert_array_equal(
                own[:, :2].argmax(-1), first.obs.unit_class[b]
            )


def test_a_system_without_policies_of_agents_is_an_error():
    config = jmarl.load_config("sable", ["env=probe_bandit", "num_envs=8"])
    with pytest.raises(ConfigError, match="no distribution over actions"):
        policy_distance.measure(
            SavedRun(None, build_run(config)), policy_distance.Options()
        )


@pytest.mark.parametrize(
    ("after", "steps"),
    [
        ([2.0] * 8 + [10.0] * 9, 8),
        ([2.0] * 8 + [9.0] * 9, 8),
        ([12.0] * 9, 0),
        ([2.0] * 20, None),
        ([10.0] * 3, None),
    ],
)
def test_the_recovery_of_a_planted_rate(after, steps):
    before = np.full(5, 10.0)
    assert team_changes.recovery_time(before, np.array(after), 5, 0.9) == steps


def test_there_is_no_recovery_without_damage_before():
    rate = np.full(9, 3.0)
    assert team_changes.recovery_time(np.zeros(5), rate, 5, 0.9) is None
    assert team_changes.recovery_time(np.empty(0), rate, 5, 0.9) is None


def test_damage_is_averaged_by_the_time_from_the_change():
    damage = np.arange(24.0).reshape(12, 2)
    changes, last = np.zeros((2, 12, 2), bool)
    changes[4, 0] = changes[6, 1] = True
    last[9, 0] = last[8, 1] = last[11, 1] = True
    changes[10, 1] = True  # in the second episode
    trace = team_changes.Trace(damage, changes, last, last.astype(float))
    before, after = team_changes.damage_rates(trace, 3)
    series = [damage[2:10, 0], damage[4:9, 1]]
    np.testing.assert_array_equal(
        before,
        (series[0][:3] + series[1][:3]) / 2,
    )
    expected = [
        *(series[0][3:5] + series[1][3:]) / 2,
        *series[0][5:],
    ]
    np.testing.assert_array_equal(after, expected)
    assert team_changes.win_rate(trace) == 1


def test_a_run_is_measured_in_scenarios_whose_teams_change():
    names = ("squad", "squad_withdrawn")
    run = untrained("mappo", "env=battle", "env.scenario=squad")
    options = team_changes.Options(names, episodes=4, share=1e-6)
    found = team_changes.measure(run, options)
    metrics = {name.partition("/")[0] for name in found}
    assert {f"win_rate/{name}" for name in names} <= set(found)
    assert metrics <= {"win_rate", "retention", "recovery"}
    assert "recovery/squad" not in found


def test_arrivals_and_withdrawals_are_recorded_at_their_steps(tmp_path):
    """Two marines arrive at step 3, and the healer leaves at step 5, before any contact."""
    text = """\
terrain: strip
limit: 9
allies:
  - {units: {marine: 1, medivac: 1}, at: [2, 16], leaves: 5}
  - {units: {marine: 2}, at: [2, 16], arrives: 3}
enemies:
  - {units: {zealot: 1}, at: [30, 16]}
orders: hold
"""
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    run = untrained("mappo", "env=battle", f"env.scenario={path}").built
    record = jax.jit(team_changes._recorder(run, 2))
    params = run.system.init(jax.random.key(0)).params
    trace = team_changes.Trace(*jax.device_get(record(params, jax.random.key(1))))
    first = trace.changes[: trace.last[:, 0].argmax() + 1]
    assert [tuple(row) for row in np.argwhere(first)] == [
        (2, 0),
        (2, 1),
        (4, 0),
        (4, 1),
    ]


def test_other_environments_have_no_scenarios():
    run = untrained("mappo", "env=probe_bandit")
    with pytest.raises(ConfigError, match=r"^env='probe_bandit': has no scenario"):
        team_changes.measure(run, team_changes.Options(("squad",)))


def test_zero_shot_results_in_the_own_environment_are_those_of_an_evaluation():
    run = untrained("ippo", "env=probe_bandit", "num_seeds=2")
    options = zero_shot_results.Options(("probe_bandit",), episodes=4, seed=3)
    run = Stacked(*run)
    expected = play(run.built, run.stacked(), 4, 3)["greedy"]["return"].mean(1)
    found = zero_shot_results.measure(run, options)
    assert set(found) == {"return/probe_bandit"}
    np.testing.assert_allclose(found["return/probe_bandit"], expected)


class Stacked(Untrained):
    """Two seeds with parameters of their own."""

    def stacked(self):
        keys = jax.random.split(jax.random.key(0), 2)
        return jax.jit(jax.vmap(self.built.system.init))(keys).params

    def params(self):
        stacked = self.stacked()
        return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(2)]


def test_an_unknown_environment_is_an_error_before_any_run():
    with pytest.raises(
        ConfigError, match=r"options.envs=smax_3: .*did you mean smax_3"
    ):
        zero_shot_results.Options(("smax_3",))


def test_parameters_that_do_not_fit_an_environment_are_an_error():
    run = untrained("ippo", "env=smax_3m")
    options = zero_shot_results.Options(("smax_5v5",))
    with pytest.raises(ConfigError, match=r"measure\.options\.envs=.*smax_5v5"):
        zero_shot_results.measure(run, options)


@pytest.mark.parametrize(
    ("words", "message"),
    [({"envs": ()}, "envs"), ({"envs": ("smax_3m",), "episodes": 0}, "episodes")],
)
def test_wrong_options_of_zero_shot_results_are_errors(words, message):
    with pytest.raises(ConfigError, match=message):
        zero_shot_results.Options(**words)
