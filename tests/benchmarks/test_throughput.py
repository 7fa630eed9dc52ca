"""Tests of the throughput benchmark: both sides must learn, from as much, before a time counts."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.support import common, peers
from benchmarks.throughput import __main__ as throughput
from benchmarks.throughput import machine_rate
from jmarl import load_config
from jmarl.cli.process import exit_code
from jmarl.forecast.flops import Product


class Learner:
    """Gradient descent on a square. With a rate of zero it takes as long and does not learn."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.params = {"kernel": jnp.ones((2, 3)), "bias": jnp.full(3, 0.5)}

    def update(self) -> None:
        self.params = {name: x - self.rate * x for name, x in self.params.items()}


def rejects(gate: Callable[..., None], rate: float) -> bool:
    """Return True if a gate exits before this learner is timed."""
    learner = Learner(rate)
    try:
        gate("a learner", learner.update, lambda: learner.params)
    except SystemExit as stop:
        return "no gradient step" in str(stop.code)
    return False


def accept_without_check(name, update, params) -> None:
    """Run the update without a check of the parameters."""
    update()


DEFECTIVE = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: accepts a learner that does not learn",
)
GATES = [
    throughput.require_change,
    pytest.param(accept_without_check, marks=DEFECTIVE),
]


@pytest.mark.parametrize("gate", GATES)
def test_learner_that_does_not_learn_is_rejected(gate):
    assert not rejects(gate, rate=0.1)
    assert rejects(gate, rate=0.0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], False),
        ([0.3, 0.0], False),
        ([float("nan")], False),
        ([0.3, 0.3], False),
        ([0.3], True),
        ([0.0, -0.2], True),
    ],
)
def test_learning_needs_changing_losses_and_a_last_one_that_is_not_zero(
    losses, expected
):
    assert peers.is_learning(losses) is expected


def test_networks_of_unequal_size_are_rejected():
    throughput.require_equal_size(104, 100, within=0.05)
    with pytest.raises(SystemExit, match=r"106 parameters against 100 differ by 6\.0%"):
        throughput.require_equal_size(106, 100, within=0.05)


def test_first_width_is_the_number_of_inputs_of_the_named_layer():
    params = {
        "torso": {"dense_0": {"kernel": np.zeros((1, 7, 4))}},
        "value": {"kernel": np.zeros((1, 4, 1))},
    }
    assert throughput.first_width(params, "torso/dense_0") == 7


def matched_config(name: str):
    """Return jmarl's configuration at the sizes of a script, and its replay size."""
    match = peers.MATCHES[name]
    stored = peers.STORED * match.envs * match.steps
    overrides = [text.format(stored=stored) for text in match.overrides]
    sizes = [f"num_envs={match.envs}", f"rollout_length={match.steps}"]
    return load_config(name, [*sizes, *overrides]), stored


@pytest.mark.parametrize("name", ["mappo", "pqn_vdn"])
def test_both_sides_have_the_same_epochs_and_minibatches(name):
    match = peers.MATCHES[name]
    config, _ = matched_config(name)
    epochs = match.config["UPDATE_EPOCHS" if name == "mappo" else "NUM_EPOCHS"]
    minibatches = match.config["NUM_MINIBATCHES"]
    assert config.system.epochs == epochs
    assert config.system.minibatches == minibatches
    assert epochs * minibatches == match.gradient_steps


def test_both_sides_of_qmix_have_the_same_batch_mixer_and_buffer():
    match = peers.QMIX
    config, stored = matched_config("qmix")
    system = config.system
    assert system.gradient_steps == match.config["NUM_EPOCHS"]
    assert system.batch_size == match.config["BUFFER_BATCH_SIZE"]
    assert system.mixer.embed == match.config["MIXER_EMBEDDING_DIM"]
    assert system.mixer.hypernet == match.config["MIXER_HYPERNET_HIDDEN_DIM"]
    assert system.replay_size == stored
    assert system.gradient_steps == match.gradient_steps


@pytest.mark.parametrize("name", peers.MATCHES)
def test_both_sides_have_the_same_widths(name):
    script = peers.MATCHES[name].config
    config, _ = matched_config(name)
    keys = {"HIDDEN_SIZE", "FC_DIM_SIZE", "GRU_HIDDEN_DIM"} & set(script)
    network = config.network
    widths = {network.memory_width, *network.torso, *network.head}
    assert {script[key] for key in keys} == widths


class Script:
    """A small script with the interface of JaxMARL's.

    Its result is the number of gradient steps, and each update reduces the loss by ``rate``.
    """

    def __init__(self, rate: float, per_update: int) -> None:
        self.rate = rate
        self.per_update = per_update

    def make_train(self, config):
        rows = config["NUM_ENVS"] * config["NUM_STEPS"]
        updates = config["TOTAL_TIMESTEPS"] // rows

        def log(loss):
            self.wandb.log({"loss": loss})

        def train(key):
            for i in range(updates):
                jax.debug.callback(log, 1.0 - self.rate * i)
            return jnp.int32(updates * self.per_update)

        return train


@pytest.mark.parametrize(
    ("rate", "per_update", "learns"),
    [
        (0.1, 3, True),
        (0.0, 3, False),
        (0.1, 0, False),
    ],
)
def test_script_is_rejected_unless_losses_change_and_every_step_is_taken(
    rate, per_update, learns
):
    match = peers.QMIX._replace(
        envs=2, steps=5, gradient_steps=3, steps_taken=lambda n: [n]
    )
    peer = peers.Peer(Script(rate, per_update), match, units=5)
    result = peer.program(2, logging=True)()
    if learns:
        peer.check(result, 2)
    else:
        with pytest.raises(SystemExit, match="did not learn"):
            peer.check(result, 2)


def timing(wall: float, cpu: float) -> common.Timing:
    return common.Timing(cpu, cpu, wall, wall, noise=0.0, by_wall=True)


def test_the_setup_of_a_script_does_not_count():
    script = timing(10.0, 12.0)
    jmarl = timing(3.0, 6.0)
    pair = common.PairTiming(script, jmarl, ratio=10.0, noise=0.0)
    steps = {"jmarl": 90.0, "jaxmarl": 100.0}
    rates = throughput.rates(pair, timing(4.0, 4.0), updates=3, steps=steps)
    by_cpu = {"jmarl": 45.0, "jaxmarl": 100 / (8 / 3)}
    assert rates["seconds an update"] == {"jmarl": 1.0, "jaxmarl": 2.0}
    assert rates["environment steps a second"] == {"jmarl": 90.0, "jaxmarl": 50.0}
    assert rates["environment steps a CPU second"] == pytest.approx(by_cpu)


def test_system_without_a_script_exits_with_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["throughput", "systems=sable"])
    assert exit_code(throughput.main) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_folder_without_the_script_is_rejected(tmp_path):
    with pytest.raises(SystemExit, match=r"no baselines/QLearning/qmix_rnn\.py"):
        peers.load_script(str(tmp_path), peers.QMIX.script)


def test_the_machines_rate_counts_each_product_as_often_as_it_runs(monkeypatch):
    """Products with a vector do not count."""
    seconds = {Product(1, 8, 8, 8): 2.0, Product(4, 8, 8, 8): 5.0}

    def time_each(calls, repeats, *, wall):
        each = {
            name: seconds[name] * machine_rate.call_products(name) * jax.device_count()
            for name in calls
            if name is not None
        }
        times = {None: 20.0, **each}
        return {name: Timed(times[name]) for name in calls}

    monkeypatch.setattr(machine_rate, "time_each", time_each)
    found = Counter(dict(zip(seconds, (3, 2), strict=True)))
    found[Product(1, 1000, 1000, 1)] = 10
    rate = machine_rate.machine_rate(found, lambda: None, 2)
    assert rate == (2 * 8**3 * (3 + 4 * 2), pytest.approx(3 * 2.0 + 2 * 5.0), 20.0)


class Timed(NamedTuple):
    """A planted time."""

    wall_median: float


NARROW = Product(1, 20480, 128, 16)


def test_a_program_takes_as_long_as_its_products():
    """A product that XLA takes out of the loop would take a hundredth of the time."""
    _, rows, depth, columns = NARROW
    operands = jnp.ones((rows, depth)), jnp.ones((depth, columns))
    copies = [jax.device_put(operands, device) for device in jax.devices()]
    multiply = jax.jit(jnp.matmul)

    def program():
        return [multiply(*pair) for _ in range(100) for pair in copies]

    found = Counter({NARROW: 100 * len(copies)})
    shares = []
    for _ in range(3):  # another process may disturb one
        rate = machine_rate.machine_rate(found, program, 4)
        shares.append(rate.seconds / rate.program_seconds)
    assert 0.3 < sorted(shares)[1] < 3
