"""Tests of the scaling study: exponents, completeness, and checks before anything is timed."""

import json

import jax
import numpy as np
import pytest

from benchmarks import decode, heterogeneous, scaling
from benchmarks.support import growth, policies, sharing_cost, update_cost
from benchmarks.support.common import PairTiming, Timing
from jmarl.cli.process import exit_code
from jmarl.networks.sequence.policy import action_codec


POWERS = {"linear": 1.0, "square": 2.0, "flat": 0.0}


def power_laws(sizes=(3, 10, 32, 64, 100)):
    """Return costs that follow ``POWERS`` from 32 agents on, and no law below."""

    def costs(n: int) -> dict[str, float]:
        if n < 32:
            return dict.fromkeys(POWERS, n % 7 + 1.0)
        return {name: 7.0 * n**power for name, power in POWERS.items()}

    return {n: costs(n) for n in sizes}


def test_exponents_are_those_of_known_power_laws_from_32_agents_on():
    assert growth.exponents(power_laws()) == pytest.approx(POWERS, abs=1e-9)


def test_policy_timed_at_a_single_large_size_has_no_exponent():
    rows = power_laws()
    rows[64]["MAT recompute"] = 1.0
    assert set(growth.exponents(rows)) == set(POWERS)
    assert growth.exponents(power_laws((3, 10, 32))) == {}


def timing(cpu: float, wall: float, noise: float) -> Timing:
    return Timing(cpu, cpu, wall, wall, noise, by_wall=False)


@pytest.mark.parametrize(
    ("noise", "expected"),
    [(0.02, "9.0 times (by wall time 3.0; A/A noise 2.0%)"), (0.2, "withheld")],
)
def test_ratio_is_that_of_a_pair_or_withheld(noise, expected):
    baseline = timing(18.0, 6.0, noise)
    candidate = timing(2.0, 2.0, noise)
    pair = PairTiming(baseline, candidate, 9.0, noise)
    assert expected in decode.pair_text(pair)


@pytest.mark.slow
def test_actions_are_checked_at_every_size_before_they_are_timed():
    args = decode.DEFAULTS | {"envs": 2, "repeats": 2}
    size = decode.measure(3, args)
    assert set(size.milliseconds) == {"MAPPO", *decode.CACHED, policies.RECOMPUTE}
    assert min(size.milliseconds.values()) > 0
    assert not size.wrong
    assert size.pair is None


def test_report_has_every_quantity_and_every_system_in_each_table():
    systems = scaling.DEFAULTS["systems"]
    rows = {n: dict.fromkeys(systems, float(n)) for n in (32, 64)}
    study = dict.fromkeys(growth.QUANTITIES, rows)
    text = scaling.report("fixed", study, systems)
    tables = text.split("\n\n")[1::2]
    assert all(title in text for title in growth.QUANTITIES.values())
    assert len(tables) == len(growth.QUANTITIES)
    exponents = " | ".join(["1"] * len(systems))
    for table in tables:
        lines = table.splitlines()
        assert lines[0] == f"| agents | {' | '.join(systems)} |"
        assert lines[-1] == f"| exponent, n >= 32 | {exponents} |"


@pytest.mark.parametrize("name", policies.SYSTEMS)
def test_no_width_of_a_policy_grows_with_the_team(name):
    """Parameters of 8 and of 16 agents have the same shapes if the environment's widths do.

    Those of agents with separate parameters are compared for one agent.
    """
    config = policies.load_policy_config(name)

    def shapes(n_agents):
        spec = policies.fixed_spec(n_agents)
        system = policies.make_system(name, spec, config)
        params = jax.eval_shape(system.init, jax.random.key(0)).params
        shapes = jax.tree.map(lambda x: x.shape, params)
        if config.system.separate_agents:
            shapes["actor"] = jax.tree.map(lambda x: x.shape[1:], params["actor"])
        return shapes

    assert shapes(8) == shapes(16)


def test_random_observations_have_the_shapes_of_the_environment_and_hide_nothing():
    spec = scaling.FAMILIES["smax"].make_spec(3)
    obs = policies.random_obs(spec, 2, 4)
    expected = [(2, 4, 3, group.size, group.width) for group in spec.groups]
    assert [rows.shape for rows in obs.rows] == expected
    assert np.all(obs.alive)
    assert np.all(obs.avail)
    assert all(np.all(mask) for mask in obs.mask)
    assert not np.any(obs.joined)


def test_recomputing_acts_as_the_cache_does():
    spec = policies.fixed_spec(3)
    config = policies.load_policy_config("MAT")
    policy = policies.make_policy("MAT", spec, config)
    codec = action_codec(spec)
    init = jax.jit(policy.init)
    params = policies.away_from_init(init(jax.random.key(3)))
    inputs = policies.random_inputs(spec, codec, 4)
    act_cached = jax.jit(decode.cached_act(policy, codec))
    act_recomputed = jax.jit(policies.recompute_act(policy, codec))
    cached = act_cached(params, inputs)
    recomputed = act_recomputed(params, inputs)
    assert np.array_equal(cached, recomputed)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["scaling", *arguments])
    return exit_code(scaling.main)


def test_bad_arguments_exit_with_code_2_and_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "agent=2")
    assert stop.value.code == 2
    line = "unknown argument 'agent'; did you mean 'agents'?\n"
    assert capsys.readouterr().err == line
    for word in ("worlds=mars", "systems=QMIX", "envs=0"):
        assert run(monkeypatch, word, "agents=2") == 2
        assert capsys.readouterr().err.count("\n") == 1


class Learner:
    """A learner with one parameter array."""

    def __init__(self, params):
        self.params = params


def update_by(rate, loss=0.1, ratio_error=0.0) -> growth.Program:
    """Return an update that reduces the parameters, with given metrics."""
    params = {"kernel": np.ones(2)}
    after = Learner({"kernel": params["kernel"] * (1 - rate)})
    metrics = {
        "loss": np.float32(loss),
        "ratio_error": np.float32(ratio_error),
    }
    before = Learner(params)
    return growth.Program(lambda learner: (after, metrics), (before,))


def test_learner_without_change_is_rejected():
    scaling.require_learning("it", update_by(0.1))
    bad = (
        update_by(0.0),
        update_by(0.1, loss=np.nan),
        update_by(0.1, ratio_error=0.5),
    )
    for update in bad:
        with pytest.raises(SystemExit, match="it did not learn"):
            scaling.require_learning("it", update)


@pytest.mark.slow
def test_small_study_from_arguments_to_record_and_picture(
    monkeypatch, capsys, tmp_path
):
    out = tmp_path / "scaling.json"
    small = [
        "worlds=smax",
        "smax_agents=2",
        "systems=MAT",
        "repeats=2",
        "updates=2",
        "rows=1",
        f"out={out}",
    ]
    assert run(monkeypatch, *small) == 0
    study = json.loads(out.read_text())["worlds"]["smax"]
    assert all(study[quantity]["2"]["MAT"] > 0 for quantity in growth.QUANTITIES)
    assert policies.RECOMPUTE in study["step_ms"]["2"]
    assert policies.RECOMPUTE not in study["update_ms"]["2"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith("smax, 2 agents: MAT ")


def test_a_line_through_linear_costs_is_exact_and_one_through_squares_is_not():
    line = heterogeneous.fit_line({n: 2.0 + 3.0 * n for n in (3, 6, 12, 24)})
    assert line == pytest.approx((2.0, 3.0, 1.0))
    assert heterogeneous.fit_line({n: n**2 for n in (3, 6, 12, 24)}).r2 < 0.97


@pytest.mark.slow
def test_the_growth_of_happo_is_measured_at_a_tiny_size(capsys):
    sizes = {"agents": (2, 3), "compiled": (2, 3), "envs": 2, "rows": 4, "repeats": 2}
    record = heterogeneous.run_growth(heterogeneous.DEFAULTS | sizes)
    assert set(record["update_ms"]) == {2, 3}
    assert min(min(times.values()) for times in record["compile_s"].values()) > 0
    assert "update, ms = " in capsys.readouterr().out


@pytest.mark.slow
def test_each_system_is_compared_with_its_base():
    sizes = {"env": "smac_2m1d_vs_3m", "envs": 4, "rows": 8, "repeats": 2}
    record = update_cost.run_updates(heterogeneous.DEFAULTS | sizes)
    assert set(record) == {"mappo", "u_mappo", "shppo", "happo", "qmix", "u_qmix"}
    assert record["mappo"]["ratio"] == record["qmix"]["ratio"] == 1.0
    assert all(row["flops"] > 0 and row["temp_bytes"] > 0 for row in record.values())


def test_each_action_group_has_a_block_of_actions_of_its_own():
    spec = sharing_cost.grouped_spec(4)
    assert spec.n_actions == 6 + 30 + 16 + 30 + 16
    able = np.array(spec.group_actions)
    assert able[:, :6].all()
    np.testing.assert_array_equal(able[:, 6:].sum(0), 1)
    np.testing.assert_array_equal(able.sum(1), [36, 22, 36, 22])
    obs = sharing_cost.grouped_timesteps(spec, 2, 3).obs
    expected = able[np.arange(16) % 4]
    np.testing.assert_array_equal(obs.avail, np.broadcast_to(expected, obs.avail.shape))


@pytest.mark.slow
def test_the_cost_of_each_way_to_share_is_measured_at_a_tiny_size(capsys):
    sizes = {"groups": (2,), "envs": 2, "rows": 4, "repeats": 2}
    record = sharing_cost.run_arms(heterogeneous.DEFAULTS | sizes)
    cost = record[2]
    assert set(cost) == set(sharing_cost.ARMS)
    assert cost["unified actions"]["ratio"] == 1.0
    parameters = [cost[arm]["parameters"] for arm in sharing_cost.ARMS]
    assert parameters[0] < min(parameters[1:])
    assert all(arm["flops"] > 0 and arm["temp_bytes"] > 0 for arm in cost.values())
    assert "networks" in capsys.readouterr().out
