"""Benchmarks: a figure is refused before the learner learns, and what is printed is what was measured."""

import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    ablation,
    common,
    decode,
    entities,
    env,
    growth,
    learning,
    parameters,
    peers,
    scaling,
    throughput,
)
from jmarl import load_config
from jmarl.cli.process import exit_code
from jmarl.envs import make


class Learner:
    """Gradient descent on a square; with a rate of zero it takes as long and learns nothing."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.params = {"kernel": jnp.ones((2, 3)), "bias": jnp.full(3, 0.5)}

    def update(self) -> None:
        self.params = {name: x - self.rate * x for name, x in self.params.items()}


def refuses(gate: Callable[..., None], rate: float) -> bool:
    """Whether a benchmark's gate ends the program before a figure of this learner is taken."""
    learner = Learner(rate)
    try:
        gate("a learner", learner.update, lambda: learner.params)
    except SystemExit as stop:
        return "no gradient step" in str(stop.code)
    return False


def accepts_whatever_ran(name, update, params) -> None:
    """The peer's: it times the update, and nobody asks whether a parameter moved."""
    update()


GATES = [
    throughput.require_moved,
    pytest.param(
        accepts_whatever_ran,
        marks=pytest.mark.xfail(
            strict=True,
            raises=AssertionError,
            reason="defective twin: a figure is taken of a learner that never learns",
        ),
    ),
]


@pytest.mark.parametrize("gate", GATES)
def test_a_figure_is_refused_before_the_learner_learns(gate):
    assert not refuses(gate, rate=0.1)
    assert refuses(gate, rate=0.0)


def test_moved_asks_every_array_for_a_finite_change():
    before = {"a": jnp.zeros(3), "b": jnp.ones(2)}
    assert throughput.moved(
        before, {"a": jnp.asarray([0.0, 0.0, 1.0]), "b": jnp.zeros(2)}
    )
    assert not throughput.moved(before, before)
    assert not throughput.moved(before, {"a": jnp.ones(3), "b": jnp.ones(2)})
    assert not throughput.moved(before, {"a": jnp.ones(3), "b": jnp.full(2, jnp.nan)})


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([], False),
        ([0.3, 0.0], False),
        ([float("nan")], False),
        ([0.3, 0.3], False),
        ([0.3], True),
        ([0.0, -0.2], True),
    ],
)
def test_learned_reads_the_last_loss_and_whether_losses_move(losses, verdict):
    assert peers.learned(losses) is verdict


def test_networks_of_unequal_size_are_refused():
    throughput.require_equal_size(104, 100, within=0.05)
    with pytest.raises(SystemExit, match=r"106 parameters against 100 differ by 6\.0%"):
        throughput.require_equal_size(106, 100, within=0.05)


def test_first_width_counts_the_inputs_of_the_named_layer():
    params = {
        "torso": {"dense_0": {"kernel": np.zeros((1, 7, 4))}},
        "value": {"kernel": np.zeros((1, 4, 1))},
    }
    assert throughput.first_width(params, "torso/dense_0") == 7


def test_arguments_are_cast_to_the_type_of_their_default():
    defaults = {"envs": (64,), "repeats": 4, "out": ""}
    assert common.arguments(defaults, ["envs=8,16", "repeats=2"]) == {
        "envs": (8, 16),
        "repeats": 2,
        "out": "",
    }


def test_an_unknown_argument_ends_the_program_and_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        common.arguments({"repeats": 4, "out": ""}, ["repeat=2"])
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err
        == "unknown argument 'repeat'; did you mean 'repeats'?\n"
    )


@pytest.mark.parametrize(
    "module",
    [ablation, decode, entities, env, learning, parameters, scaling, throughput],
)
def test_the_docstring_names_exactly_the_arguments_that_exist(module):
    usage = module.__doc__.split("\n\n")[1]
    named = {
        word.strip("[]").partition("=")[0] for word in usage.split() if "=" in word
    }
    assert named == set(module.DEFAULTS)


def pair_of(
    monkeypatch,
    baseline: list[float],
    candidate: list[float],
    attempts: int = 1,
    clock: str = "cpu",
):
    """``timed_pair`` where one clock returns these seconds, in turn for each side, and the other one stands still."""
    sides = {"baseline": iter(baseline), "candidate": iter(candidate)}
    sample = {"cpu": lambda s: (s, 1.0), "wall": lambda s: (1.0, s)}[clock]
    monkeypatch.setattr(common, "_calls", lambda call: 1)
    monkeypatch.setattr(
        common, "_sample", lambda call, calls: sample(next(sides[call()]))
    )
    return common.timed_pair(
        lambda: "baseline", lambda: "candidate", 4, attempts, wall=clock == "wall"
    )


@pytest.mark.parametrize("clock", ["cpu", "wall"])
def test_the_ratio_is_between_minima_on_the_clock_that_was_asked_for(
    monkeypatch, clock
):
    pair = pair_of(monkeypatch, [4.0, 9.0, 4.1, 9.0], [2.0, 7.0, 2.0, 2.1], clock=clock)
    assert pair.ratio == 2.0
    assert pair.trusted and pair.noise == pytest.approx(0.025)


def test_a_ratio_is_flagged_where_one_side_disagrees_with_itself(monkeypatch):
    pair = pair_of(monkeypatch, [4.0, 4.0, 4.0, 4.0], [2.0, 2.0, 3.0, 3.0])
    assert pair.noise == pytest.approx(0.5)
    assert not pair.trusted


def test_what_ran_before_a_call_is_no_noise(monkeypatch):
    """In A B B A a repeat follows its own side or the other in turn, and is slower by as much each time."""
    assert pair_of(monkeypatch, [4.0, 6.0, 4.0, 6.0], [2.0, 3.0, 2.0, 3.0]).trusted


def test_a_sample_of_a_short_call_is_many_calls(monkeypatch):
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 0.05)
    count = []
    timing = common.timed(lambda: count.append(time.sleep(1e-3)), repeats=2)
    assert 20 < len(count) <= 1 + 4 + 2 * 50
    assert 1e-3 <= timing.wall_min < 1e-2


def test_a_second_round_can_settle_the_noise(monkeypatch):
    pair = pair_of(monkeypatch, [4.0] * 8, [2.0, 2.0, 3.0, 3.0] + [2.0] * 4, attempts=2)
    assert pair.trusted and pair.ratio == 2.0


def evaluations(*won: list[float]) -> list[dict]:
    return [
        {"env_steps": [100 * i, 100 * i + 1, 100 * i + 2], "greedy/won": row}
        for i, row in enumerate(won)
    ]


def test_reached_is_the_first_evaluation_whose_median_seed_stands_at_the_bar():
    rows = evaluations(
        [0.0, 0.1, 1.0], [0.2, 0.9, 0.95], [1.0, 1.0, 0.0], [0.5, 0.6, 1.0]
    )
    found = learning.reached(rows, bar=0.9)
    assert found == {
        "bar": 0.9,
        "env_steps_to_bar": 102,
        "best_median": 1.0,
        "final_median": 0.6,
    }


def test_a_bar_that_no_median_reaches_is_not_reached():
    assert (
        learning.reached(evaluations([0.0, 0.1, 1.0]), bar=0.9)["env_steps_to_bar"]
        is None
    )


def test_a_picture_takes_the_records_of_its_own_map_and_says_what_they_hold(tmp_path):
    for name, seeds in (("smax_3m", 3), ("smax_3m_wide", 5)):
        record = {"map": name, "config": {"num_seeds": seeds, "eval": {"episodes": 64}}}
        (tmp_path / f"{name}_mappo.json").write_text(json.dumps(record))
    records = learning.on_record(tmp_path, "smax_3m")
    assert [record["map"] for record in records] == ["smax_3m"]
    assert learning.title(records) == "smax_3m, 3 seeds, 64 episodes"


def test_the_ablation_trains_every_run_on_every_map_and_tabulates_wins_parameters_and_ratios(
    tmp_path, monkeypatch, capsys
):
    asked, won = (
        [],
        {"spectra_qmix_plus": [0.5, 0.75, 1.0], "spectra_qmix": [0.0, 0.25, 0.5]},
    )

    def train(run, args):
        asked.append((args["map"], *learning.command(run, tmp_path, args)[2:4]))
        rows = [{"greedy/won": [0.0] * 3}, {"greedy/won": won[run]}]
        return {"run": run, "map": args["map"], "environment": {}, "evaluations": rows}

    monkeypatch.setattr(learning, "train", train)
    words = [
        "maps=smax_5v5,smax_2v3",
        f"out={tmp_path}/ablation.json",
        "overrides=network.embed_dim=16",
    ]
    monkeypatch.setattr("sys.argv", ["ablation", *words])
    ablation.main()
    modules = ["jmarl.systems.spectra_qmix_plus", "jmarl.systems.spectra_qmix"]
    assert asked == [
        (name, module, f"env={name}")
        for name in ("smax_5v5", "smax_2v3")
        for module in modules
    ]
    records = json.loads((tmp_path / "ablation.json").read_text())["records"]
    plus, qmix = ([r["parameters"] for r in records if r["run"] == run] for run in won)
    assert plus[0]["total"] == plus[1]["total"] and qmix[0]["mixer"] > qmix[1]["mixer"]
    assert plus[0]["agent"] == qmix[0]["agent"] and [p["agents"] for p in plus] == [
        5,
        2,
    ]
    printed = capsys.readouterr().out
    assert (
        "| smax_5v5 | 0.75 (0.50 to 1.00) | 0.25 (0.00 to 0.50) |" in printed
        and "| 3 |" in printed
    )
    assert (tmp_path / "ablation.png").stat().st_size > 0


def test_parameters_are_the_known_numbers_and_only_the_flat_ones_grow_with_the_team():
    found = parameters.parameters({n: make(f"smax_{n}v{n}").spec for n in (5, 10)})
    rows = found["agents"] | found["mixers"]
    assert (
        rows["SAQA"][5] == 48_453 - 64
        and rows["HPN, 1 head"][5] == 131_590
        and rows["sum"][5] == 0
    )
    state, hidden, embed = 1 + 10 * (5 + 5), 64, 32
    per_weight = [
        (state + 1) * hidden + (hidden + 1) * out for out in (5 * embed, embed)
    ]
    assert rows["qmix"][5] == sum(per_weight) + 2 * (state + 1) * embed + embed + 1
    assert {name for name, row in rows.items() if row[5] != row[10]} == {
        "flat GRU",
        "qmix",
        "qplex",
    }


def test_the_bytes_of_a_replay_are_those_of_its_rows_and_carries():
    """Two agents against two; 600 rows hold two chunks of 32 x 8, and the ring has a slot more."""
    line = parameters.replays({2: make("smax_2v2").spec}, rows=600, envs=8)[0]
    flags_action_reward, encoded_obs, carry = 3 + 2 * 4 + 4, 4 * 8 * 4 + 4, 2 * 128 * 4
    features, rows, state = 2 * 10, 2 * (1 + 2) * 12, 1 + 4 * 10
    whole = 4 * (features + rows + state) + 2 * (1 + 2) + 4 + 2 * (7 + 1 + 1 + 4)
    expected = [
        3 * 8 * (32 * (flags_action_reward + kept) + carry)
        for kept in (encoded_obs, whole)
    ]
    assert (line["steps"], line["bytes"], line["float32_bytes"]) == (512, *expected)
    assert f"{expected[0]:,}" in parameters.report({}, [line])


def test_what_entities_add_grows_as_known_whatever_does_not_grow():
    rows = {
        n: {
            "linear": 50.0 + 0.1 * n,
            "square": 50.0 + 0.1 * (n - 50) ** 2,
            "flat": 50.0,
        }
        for n in (5, 50, 100, 200)
    }
    assert growth.exponents(rows)["linear"] < 0.2
    assert growth.exponents(entities.added(rows)) == pytest.approx(
        {"linear": 1.0, "square": 2.0}
    )


@pytest.mark.parametrize("n", [5, 200])
def test_an_agent_sees_as_many_entities_as_asked_for_and_may_attack_half_of_them(n):
    spec = entities.entity_spec(n, n_agents=8)
    assert (spec.n_agents, spec.n_slots, spec.n_actions) == (8, n, 5 + (n + 1) // 2)
    widths = [
        (group.width, group.state_width) for group in make("smax_5v5").spec.groups
    ]
    assert [(group.width, group.state_width) for group in spec.groups] == widths


def test_a_network_without_a_gradient_is_refused():
    def job(grad):
        return entities.Job(
            None, growth.Program(lambda p: (0.0, grad), ({"kernel": np.ones(2)},))
        )

    entities.require_gradient("it", job({"kernel": np.asarray([0.0, 0.1])}))
    for gradient in (np.zeros(2), np.full(2, np.nan)):
        with pytest.raises(SystemExit, match="it has a parameter without gradient"):
            entities.require_gradient("it", job({"kernel": gradient}))


def test_a_small_study_of_entities_from_arguments_to_record_and_picture(
    monkeypatch, capsys, tmp_path
):
    out = tmp_path / "entities.json"
    small = [
        "agents=saqa,updet",
        "entities=3",
        "n_agents=2",
        "envs=1",
        "rows=2",
        "repeats=2",
        "updates=2",
        f"out={out}",
    ]
    monkeypatch.setattr("sys.argv", ["entities", *small])
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 1e-3)
    assert entities.main() == 0
    found = json.loads(out.read_text())
    assert all(
        found[q]["3"][agent] > 0
        for q in growth.QUANTITIES
        for agent in ("saqa", "updet")
    )
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "UPDeT over SAQA at 3 entities, update, in turn: " in capsys.readouterr().out


@pytest.mark.parametrize("name", peers.MATCHES)
def test_both_sides_learn_alike_from_as_much(name):
    match = peers.MATCHES[name]
    stored = peers.STORED * match.envs * match.steps
    sizes = [f"num_envs={match.envs}", f"rollout_length={match.steps}"]
    cfg = load_config(
        name, [*sizes, *(text.format(stored=stored) for text in match.overrides)]
    )
    ours, theirs = cfg.system, match.config
    if name == "qmix":
        here = (
            ours.gradient_steps,
            ours.batch_size,
            ours.mixer.embed,
            ours.mixer.hypernet,
            ours.replay_size,
        )
        keys = (
            "NUM_EPOCHS",
            "BUFFER_BATCH_SIZE",
            "MIXER_EMBEDDING_DIM",
            "MIXER_HYPERNET_HIDDEN_DIM",
        )
        assert here == (*(theirs[key] for key in keys), stored)
        assert ours.gradient_steps == match.gradient_steps
    else:
        epochs = theirs["UPDATE_EPOCHS" if name == "mappo" else "NUM_EPOCHS"]
        assert (ours.epochs, ours.minibatches) == (epochs, theirs["NUM_MINIBATCHES"])
        assert epochs * ours.minibatches == match.gradient_steps
    widths = {
        theirs[key]
        for key in ("HIDDEN_SIZE", "FC_DIM_SIZE", "GRU_HIDDEN_DIM")
        if key in theirs
    }
    assert widths == {cfg.network.memory_width, *cfg.network.torso, *cfg.network.head}


class Script:
    """A peer's script in miniature: its state is its gradient steps, and ``rate`` is what a step takes off the loss."""

    def __init__(self, rate: float, per_update: int) -> None:
        self.rate, self.per_update = rate, per_update

    def make_train(self, config):
        updates = config["TOTAL_TIMESTEPS"] // (
            config["NUM_ENVS"] * config["NUM_STEPS"]
        )

        def train(key):
            for i in range(updates):
                jax.debug.callback(
                    lambda loss: self.wandb.log({"loss": loss}), 1.0 - self.rate * i
                )
            return jnp.int32(updates * self.per_update)

        return train


@pytest.mark.parametrize(
    ("rate", "per_update", "learns"), [(0.1, 3, True), (0.0, 3, False), (0.1, 0, False)]
)
def test_a_script_is_refused_unless_its_losses_move_and_every_step_is_taken(
    rate, per_update, learns
):
    match = peers.MATCHES["qmix"]._replace(
        envs=2, steps=5, gradient_steps=3, steps_taken=lambda n: [n]
    )
    peer = peers.Peer(Script(rate, per_update), match, units=5)
    result = peer.program(2, logging=True)()
    if learns:
        peer.check(result, 2)
    else:
        with pytest.raises(SystemExit, match="the figures would mean nothing"):
            peer.check(result, 2)


def test_the_setup_of_a_script_does_not_count():
    seconds = lambda wall, cpu: common.Timing(cpu, cpu, wall, wall, 0.0, True)  # noqa: E731
    pair = common.PairTiming(
        seconds(10.0, 12.0), seconds(3.0, 6.0), ratio=10.0, noise=0.0
    )
    found = throughput.rates(
        pair, seconds(4.0, 4.0), updates=3, steps={"jmarl": 90.0, "jaxmarl": 100.0}
    )
    assert found["seconds an update"] == {"jmarl": 1.0, "jaxmarl": 2.0}
    assert found["environment steps a second"] == {"jmarl": 90.0, "jaxmarl": 50.0}
    assert found["environment steps a CPU second"] == pytest.approx(
        {"jmarl": 45.0, "jaxmarl": 100 / (8 / 3)}
    )


def test_a_system_without_a_script_is_refused_and_so_is_a_folder_without_one(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr("sys.argv", ["throughput", "systems=sable"])
    assert exit_code(throughput.main) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(
        SystemExit, match=r"no QLearning/qmix_rnn\.py under its baselines"
    ):
        peers.load_script(str(tmp_path), peers.MATCHES["qmix"].script)
