"""The scaling study: exponents are those of power laws, nobody is left out, and what is timed acts and learns."""

import json

import jax
import numpy as np
import pytest

from benchmarks import decode, growth, policies, scaling
from benchmarks.support.common import PairTiming, Timing
from benchmarks.decode import cached_act
from jmarl.cli.process import exit_code
from jmarl.networks.sequence.policy import action_codec


POWERS = {"linear": 1.0, "square": 2.0, "flat": 0.0}


def power_laws(sizes=(3, 10, 32, 64, 100)):
    """Costs that follow ``POWERS`` from 32 agents on, and are anything below."""
    return {
        n: {
            name: 7.0 * n**power if n >= 32 else n % 7 + 1.0
            for name, power in POWERS.items()
        }
        for n in sizes
    }


def test_exponents_are_those_of_known_power_laws_from_32_agents_on():
    assert growth.exponents(power_laws()) == pytest.approx(POWERS, abs=1e-9)


def test_a_policy_timed_at_a_single_large_size_has_no_exponent():
    rows = power_laws()
    rows[64]["MAT recompute"] = 1.0
    assert set(growth.exponents(rows)) == set(POWERS)
    assert growth.exponents(power_laws((3, 10, 32))) == {}


@pytest.mark.parametrize(
    ("noise", "said"),
    [(0.02, "9.0 times (by wall time 3.0; A/A noise 2.0%)"), (0.2, "withheld")],
)
def test_the_ratio_is_that_of_a_pair_or_withheld(noise, said):
    timing = lambda cpu, wall: Timing(cpu, cpu, wall, wall, noise, False)  # noqa: E731
    assert said in decode.verdict(
        PairTiming(timing(18.0, 6.0), timing(2.0, 2.0), 9.0, noise)
    )


def test_the_actions_are_checked_at_every_size_before_they_are_timed():
    size = decode.measure(3, decode.DEFAULTS | {"envs": 2, "repeats": 2})
    assert set(size.milliseconds) == {"MAPPO", *decode.CACHED, policies.RECOMPUTE}
    assert min(size.milliseconds.values()) > 0
    assert not size.wrong
    assert size.pair is None


def test_a_report_has_every_quantity_and_in_each_table_every_system():
    systems = scaling.DEFAULTS["systems"]
    rows = {n: dict.fromkeys(systems, float(n)) for n in (32, 64)}
    text = scaling.report("fixed", dict.fromkeys(growth.QUANTITIES, rows), systems)
    tables = text.split("\n\n")[1::2]
    assert all(title in text for title in growth.QUANTITIES.values())
    assert len(tables) == len(growth.QUANTITIES)
    for table in tables:
        assert table.splitlines()[0] == "| agents | " + " | ".join(systems) + " |"
        assert (
            table.splitlines()[-1]
            == "| exponent, n >= 32 | " + " | ".join(["1"] * len(systems)) + " |"
        )


@pytest.mark.parametrize("name", policies.SYSTEMS)
def test_no_width_of_a_policy_grows_with_the_team(name):
    """Parameters of 8 agents and of 16 have the same shapes where the world's widths are fixed."""
    config = policies.configuration(name)

    def shapes(n_agents):
        system = policies.system_of(name, policies.fixed_spec(n_agents), config)
        return jax.tree.map(
            lambda x: x.shape, jax.eval_shape(system.init, jax.random.key(0)).params
        )

    assert shapes(8) == shapes(16)


def test_random_observations_have_the_shapes_of_the_world_and_hide_nothing():
    spec = scaling.WORLDS["smax"][1](3)
    obs = policies.random_obs(spec, 2, 4)
    assert [rows.shape for rows in obs.rows] == [
        (2, 4, 3, g.size, g.width) for g in spec.groups
    ]
    assert np.all(obs.alive) and np.all(obs.avail) and all(np.all(m) for m in obs.mask)
    assert not np.any(obs.joined)


def test_recomputing_acts_as_the_cache_does():
    spec, config = policies.fixed_spec(3), policies.configuration("MAT")
    policy, codec = policies.policy_of("MAT", spec, config), action_codec(spec)
    params = policies.away_from_init(jax.jit(policy.init)(jax.random.key(3)))
    world = policies.make_world(spec, codec, 4)
    cached, recomputed = (
        jax.jit(act(policy, codec))(params, world)
        for act in (cached_act, policies.recompute_act)
    )
    assert np.array_equal(cached, recomputed)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["scaling", *arguments])
    return exit_code(scaling.main)


def test_bad_arguments_end_the_program_with_2_and_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "agent=2")
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err == "unknown argument 'agent'; did you mean 'agents'?\n"
    )
    for word in ("worlds=mars", "systems=QMIX", "envs=3"):
        assert run(monkeypatch, word, "agents=2") == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_learner_that_stands_still_is_refused():
    params, metrics = (
        {"kernel": np.ones(2)},
        {"loss": np.float32(0.1), "ratio_error": np.float32(0.0)},
    )

    class Learner:
        def __init__(self, params):
            self.params = params

    def update_by(rate, **found):
        after = Learner({"kernel": params["kernel"] * (1 - rate)}), {**metrics, **found}
        return growth.Program(lambda learner: after, (Learner(params),))

    scaling.require_learning("it", update_by(0.1))
    for bad in (
        update_by(0.0),
        update_by(0.1, loss=np.float32("nan")),
        update_by(0.1, ratio_error=np.float32(0.5)),
    ):
        with pytest.raises(SystemExit, match="it did not learn"):
            scaling.require_learning("it", bad)


def test_a_small_study_from_arguments_to_record_and_picture(
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
    assert (
        policies.RECOMPUTE in study["step_ms"]["2"]
        and policies.RECOMPUTE not in study["update_ms"]["2"]
    )
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith("smax, 2 agents: MAT ")
