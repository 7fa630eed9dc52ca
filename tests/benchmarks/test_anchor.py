"""The comparison of learning with JaxMARL's script."""

import math

import pytest

from benchmarks.anchor import __main__ as anchor
from benchmarks.support.peers import MAPPO
from jmarl.config.compose import load_config


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


def test_both_sides_have_the_values_of_the_script():
    config = load_config("mappo", ["env=smax_smacv2_5_units", *anchor.overrides()])
    script = MAPPO.config
    assert config.num_envs == MAPPO.envs and config.rollout_length == MAPPO.steps
    names = {
        "lr": "LR",
        "gamma": "GAMMA",
        "gae_lambda": "GAE_LAMBDA",
        "clip": "CLIP_EPS",
        "entropy_coef": "ENT_COEF",
        "value_coef": "VF_COEF",
        "max_grad_norm": "MAX_GRAD_NORM",
        "epochs": "UPDATE_EPOCHS",
        "minibatches": "NUM_MINIBATCHES",
        "anneal_lr": "ANNEAL_LR",
    }
    for own, theirs in names.items():
        assert getattr(config.system, own) == script[theirs], own
