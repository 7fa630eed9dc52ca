"""What goes from one team size to another: stages of a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import jmarl
from jmarl.config import ConfigError, CurriculumConfig, StageConfig
from jmarl.learning.optim import by_part, keep_schedules, optimiser
from jmarl.training.anakin import init_runner, learnt, next_runner
from jmarl.training.api import assemble, train


@pytest.fixture(scope="module", autouse=True)
def teams():
    toy.install()
    with toy.teams():
        yield


def stages(*shares):
    return CurriculumConfig(tuple(StageConfig(f"team_{i}", share) for i, share in enumerate(shares)))


@pytest.mark.parametrize(
    ("shares", "evaluations", "ends"),
    [
        ((), 4, (8,)),
        ((1.0,), 4, (8,)),
        ((0.5, 0.5), 4, (4, 8)),
        ((0.3, 0.7), 4, (2, 8)),
        ((0.2, 0.3, 0.5), 4, (2, 4, 8)),
        ((0.1,) * 10, 10, tuple(range(2, 22, 2))),
    ],
)
def test_stages_end_where_evaluation_intervals_do(shares, evaluations, ends):
    last = f"team_{max(0, len(shares) - 1)}"
    config = toy.config(total_timesteps=evaluations * 128, env={"name": last}, curriculum=stages(*shares))
    assert config.num_updates == 2 * evaluations and config.stage_ends == ends
    assert len(config.worlds) == len(ends) and config.worlds[-1] == last
    of_updates = [sum(config.stage_at(update) == i for update in range(config.num_updates)) for i in range(len(ends))]
    assert of_updates == [end - begin for begin, end in zip((0, *ends), ends, strict=False)]


BAD = [
    ((0.5, 0.6), {}, "curriculum.stages=[0.5, 0.6]: fractions must add up to 1, not 1.1"),
    ((0.0, 1.0), {}, "curriculum.stages=0.0: a fraction must be greater than 0 and at most 1"),
    ((0.5, 0.5), {"env": {"name": "other"}}, "curriculum.stages='team_1': the last stage must be the world of the run"),
    ((0.1, 0.9), {}, "eval.every=128: gives 4 evaluations, and each of 2 stages ends with one; make it at most 51"),
]


@pytest.mark.parametrize(("shares", "changes", "message"), BAD)
def test_stages_that_cannot_be_are_one_line(shares, changes, message):
    with pytest.raises(ConfigError) as error:
        toy.config(**{"env": {"name": "team_1"}, "curriculum": stages(*shares), **changes})
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_what_is_advised_where_evaluations_are_too_few_is_enough():
    rows = toy.config().rows_per_update
    config = toy.config(total_timesteps=100 * rows, env={"name": "team_1"}, curriculum=stages(0.5, 0.5))
    tight = dataclasses.replace(config.eval, every=100 * rows)
    with pytest.raises(ConfigError, match=f"make it at most {50 * rows}$"):
        dataclasses.replace(config, eval=tight)
    assert dataclasses.replace(config, eval=dataclasses.replace(tight, every=50 * rows)).stage_ends == (50, 100)


def test_a_curriculum_is_a_choice_or_a_list():
    words = ["env=smax_20v20", "total_timesteps=1e7", "num_envs=64"]
    chosen = jmarl.load_config("spectra_qmix_plus", [*words, "curriculum=5v5_10v10_20v20"])
    assert chosen.worlds == ("smax_5v5", "smax_10v10", "smax_20v20")
    pair = "[{env: smax_5v5, fraction: 0.3}, {env: smax_20v20, fraction: 0.7}]"
    own = jmarl.load_config("spectra_qmix_plus", [*words, f"curriculum.stages={pair}"])
    assert own == jmarl.load_config("spectra_qmix_plus", [*words, "curriculum=5v5_20v20"])
    with pytest.raises(ConfigError, match=r"^env=smax_5x5: unknown environment"):
        jmarl.load_config("spectra_qmix_plus", [*words, f"curriculum.stages={pair.replace('5v5', '5x5')}"])
    with pytest.raises(ConfigError, match=r"^curriculum=5v5: no such choice; the nearest is 5v5_20v20"):
        jmarl.load_config("spectra_qmix_plus", [*words, "curriculum=5v5"])


@pytest.mark.parametrize("parts", [(), ("actor", "critic")])
def test_schedules_go_on_while_moments_begin_anew(parts):
    """Adam's first step is the learning rate against the sign of the gradient, whatever its size."""
    tx = optimiser(0.1, 1e9, anneal=True, steps_per_update=2, num_updates=10)
    tx = by_part(tx, parts) if parts else tx
    params = {"actor": jnp.ones(2), "critic": jnp.ones(3)}
    old = tx.init(params)
    for _ in range(6):
        _, old = tx.update(params, old, params)
    state = keep_schedules(tx.init(params), old)
    change, _ = tx.update(jax.tree.map(lambda x: -7 * x, params), state, params)
    for x in jax.tree.leaves(change):
        np.testing.assert_allclose(x, 0.1 * (1 - 3 / 10), rtol=1e-4)


SMALL = ("env=probe_cue", "num_envs=8", "rollout_length=4", "total_timesteps=128", "network.torso=[4]", "network=mlp")
SYSTEMS = {
    "vdn": ("system.batch_size=8", "system.replay_size=64", "system.gradient_steps=1"),
    "qmix": ("system.batch_size=8", "system.replay_size=64", "system.gradient_steps=1", "system.mixer.embed=2"),
    "ippo": ("system.minibatches=1",),
}


def config(system, world, **changes):
    return dataclasses.replace(jmarl.load_config(system, [*SMALL, *SYSTEMS[system]]), env={"name": world}, **changes)


def counted(tree, start):
    """Other numbers in every leaf: 1, 2, ... from ``start``; keys stay."""

    def fill(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x if key else (start + jnp.arange(x.size)).reshape(x.shape).astype(x.dtype)

    return jax.tree.map(fill, tree)


@pytest.mark.parametrize(("system", "reset"), [("vdn", True), ("ippo", True), ("ippo", False)])
def test_the_next_stage_has_what_was_learnt_and_all_else_anew(system, reset):
    small, large = (assemble(config(system, f"cue_{n}")) for n in (2, 3))
    before = init_runner(*small, 8, jax.random.key(0))
    before = before.replace(learner=counted(before.learner, 1), env_steps=jnp.uint32(77_000))
    after = next_runner(*large, 8, learnt(before), reset_optimiser=reset)
    fresh = init_runner(*large, 8, before.key)
    handed = {"vdn": ("params", "target"), "ippo": ("params", "value_stats")}[system]
    same = jax.tree_util.Partial(jax.tree.map, np.testing.assert_array_equal)
    for name in handed:
        same(getattr(after.learner, name), getattr(before.learner, name))
    for name in ({"vdn": ("updates", "replay"), "ippo": ("updates",)})[system]:
        same(getattr(after.learner, name), getattr(fresh.learner, name))
    same(after.timestep, fresh.timestep)
    assert after.timestep.reward.shape == (8, 3) and after.env_steps == 77_000
    explore = large[1].explore
    assert system == "ippo" or explore(after.env_steps) == explore(jnp.float32(77_000)) < explore(jnp.float32(0))
    if reset:
        same(after.learner.opt_state, keep_schedules(fresh.learner.opt_state, before.learner.opt_state))
        counts = [x for x in jax.tree.leaves(after.learner.opt_state, is_leaf=_is_schedule) if _is_schedule(x)]
        assert counts and all(x.count == 1 for x in counts)
    else:
        same(after.learner.opt_state, before.learner.opt_state)


def _is_schedule(x):
    return isinstance(x, optax.ScaleByScheduleState)


def test_a_mixer_that_depends_on_the_size_is_named_with_what_does_not():
    halves = CurriculumConfig((StageConfig("cue_2", 0.5), StageConfig("cue_3", 0.5)))
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda key: train(config("qmix", "cue_3", curriculum=halves), key), jax.random.key(0))
    text = str(error.value)
    assert text.startswith("curriculum.stages=cue_2: parameter mixer/params/")
    assert text.endswith("it depends on the size of the team; choose system.mixer.name=st_hypernet, which does not")
