"""The comparison of learning with JaxMARL's scripts."""

import contextlib
import functools
import itertools
import math
import sys

import pytest

from benchmarks.anchor import __main__ as anchor
from benchmarks.anchor.systems import ANCHORS
from jmarl.config import ConfigError
from jmarl.config.compose import load_config
from jmarl.results.files import read_json


def test_a_win_rate_is_that_of_the_last_tenth_of_the_updates():
    curves = [[0.0] * 18 + [0.5, 0.7], [0.9] * 18 + [math.nan, 0.4]]
    found = anchor.summarize(curves)
    assert found["by_seed"] == pytest.approx([0.6, 0.4])
    mean, low, high = found["mean"]
    assert mean == pytest.approx(0.5) and low < mean < high


@pytest.mark.parametrize(
    ("ours", "equal"), [((0.5, 0.6, 0.55), True), ((0.8, 0.9, 0.85), False)]
)
def test_sides_are_equal_if_the_interval_of_the_difference_has_0(ours, equal):
    sides = {"jmarl": {"by_seed": ours}, "jaxmarl": {"by_seed": (0.52, 0.58, 0.5)}}
    found = anchor.compare(sides)
    assert found["equal"] is equal
    assert found["difference"][0] == pytest.approx(sum(ours) / 3 - 1.6 / 3)


NAMES = {
    "mappo": {
        "gae_lambda": "GAE_LAMBDA",
        "clip": "CLIP_EPS",
        "entropy_coef": "ENT_COEF",
        "value_coef": "VF_COEF",
        "max_grad_norm": "MAX_GRAD_NORM",
        "epochs": "UPDATE_EPOCHS",
        "anneal_lr": "ANNEAL_LR",
    },
    "pqn_vdn": {
        "td_lambda": "LAMBDA",
        "explore_start": "EPS_START",
        "explore_end": "EPS_FINISH",
        "reward_scale": "REW_SCALE",
        "epochs": "NUM_EPOCHS",
        "anneal_lr": "LR_LINEAR_DECAY",
    },
}
"""Keys of jmarl's configuration and of the script's that have equal values."""


@pytest.mark.parametrize("system", NAMES)
def test_both_sides_have_the_values_of_the_script(system):
    match = ANCHORS[system].match
    words = ["env=smax_smacv2_5_units", *ANCHORS[system].own(steps=1_000_000)]
    config = load_config(system, words)
    assert config.num_envs == match.envs and config.rollout_length == match.steps
    common = {"lr": "LR", "gamma": "GAMMA", "minibatches": "NUM_MINIBATCHES"}
    for own, theirs in {**common, **NAMES[system]}.items():
        assert getattr(config.system, own) == match.config[theirs], own


def test_exploration_decays_and_gradients_are_clipped_as_in_the_script():
    script = ANCHORS["pqn_vdn"].match.config
    words = ["env=smax_smacv2_5_units", *ANCHORS["pqn_vdn"].own(steps=1_000_000)]
    config = load_config("pqn_vdn", words)
    assert config.system.explore_steps == script["EPS_DECAY"] * 1_000_000
    assert len(config.network.torso) == script["NUM_LAYERS"]
    assert not config.system.mixer.mask_dead
    assert config.system.max_grad_norm == script["MAX_GRAD_NORM"] / 2


def test_an_unknown_system_is_an_error(call):
    run, path = call
    with pytest.raises(
        ConfigError, match="system='qmix': must be one of mappo, pqn_vdn"
    ):
        run(6, "system=qmix")
    assert not path.exists()


CURVES = {
    (side, seed): [0.1 * seed, 0.2 + 0.05 * number + 0.1 * seed]
    for number, side in enumerate(anchor.SIDES)
    for seed in range(3)
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that runs the benchmark, with planted curves, up to a number of seeds."""
    path = tmp_path / "new" / "anchor.json"

    def run(limit=6, *words):
        trained = []

        def train(side, args, seed):
            if len(trained) == limit:
                raise KeyboardInterrupt
            trained.append((side, seed))
            return CURVES[side, seed]

        for name, side in (("_peer_run", "jaxmarl"), ("_own_run", "jmarl")):
            planted = functools.partial(train, side)
            monkeypatch.setattr(anchor, name, planted)
        line = ["anchor", "peer=x", f"out={path}", *words]
        monkeypatch.setattr(sys, "argv", line)
        with contextlib.suppress(KeyboardInterrupt):
            anchor.main()
        return trained

    return run, path


def test_an_interrupted_benchmark_goes_on_from_its_record(call):
    run, path = call
    everything = list(itertools.product(range(3), anchor.SIDES))
    order = [(side, seed) for seed, side in everything]
    assert run() == order
    whole = without_environment(read_json(path))
    path.unlink()
    for number in range(6):
        assert run(1) == [order[number]]
        record = read_json(path)
        left = [f"{side}, seed {seed}" for side, seed in order[number + 1 :]]
        assert record["unfinished"] == left
        assert ("rows" in record) == ("difference" in record) == (not left)
    assert without_environment(read_json(path)) == whole
    before = path.read_bytes()
    assert run() == [] and path.read_bytes() == before


def without_environment(tree):
    if isinstance(tree, dict):
        return {
            k: without_environment(v) for k, v in tree.items() if k != "environment"
        }
    return [without_environment(x) for x in tree] if isinstance(tree, list) else tree


def test_a_record_of_other_settings_is_an_error_and_stays(call):
    run, path = call
    run(2)
    before = path.read_bytes()
    message = (
        "'units': 5, 'seeds': 3, 'steps': 3000000.*, not .*'steps': 1000,?.*another"
    )
    with pytest.raises(ConfigError, match=message):
        run(6, "steps=1000")
    assert path.read_bytes() == before
    path.write_text("{}")
    with pytest.raises(ConfigError, match="is not a record of this benchmark"):
        run()
