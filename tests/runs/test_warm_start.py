"""Transfer between team sizes: curriculum stages, warm starts, and transfer tables."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import jmarl
from jmarl.config import ConfigError, CurriculumConfig, StageConfig
from jmarl.learning.optimizers import (
    LearningConfig,
    by_part,
    keep_schedules,
    optimizer,
)
from jmarl.runs import folder as run_folder
from jmarl.runs import loop
from jmarl.runs import run as run_module
from jmarl.runs.checkpoint import Checkpoints
from jmarl.runs.run import run
from jmarl.runs.warm_start import apply_warm_start, load_warm_start
from jmarl.saved.evaluate_saved import evaluate_run, transfer_run
from jmarl.training.anakin import continue_in_env, drop_env_state, init_runner
from jmarl.training.build import build_run
from jmarl.training.compatibility import TEAM_SIZE_ADVICE, check_acting, check_fit
from jmarl.training.programs import seed_keys, stage_programs
from jmarl.training.train import train


@pytest.fixture(scope="module", autouse=True)
def teams():
    toy.install()
    with toy.teams():
        yield


def curriculum(*fractions):
    """Return a curriculum of the environments ``team_0``, ``team_1``, ..."""
    stages = [StageConfig(f"team_{i}", share) for i, share in enumerate(fractions)]
    return CurriculumConfig(tuple(stages))


@pytest.mark.parametrize(
    ("fractions", "updates", "ends"),
    [
        ((), 8, (8,)),
        ((1.0,), 8, (8,)),
        ((0.5, 0.5), 8, (4, 8)),
        ((0.3, 0.7), 8, (2, 8)),
        ((0.2, 0.3, 0.5), 8, (2, 4, 8)),
        ((0.1,) * 10, 20, tuple(range(2, 22, 2))),
    ],
)
def test_stages_take_their_share_of_the_updates(fractions, updates, ends):
    last = f"team_{max(0, len(fractions) - 1)}"
    config = toy.config(
        total_timesteps=updates * 64,
        env={"name": last},
        curriculum=curriculum(*fractions),
    )
    assert config.num_updates == updates and config.schedule.stage_ends == ends
    assert len(config.stage_envs) == len(ends) and config.stage_envs[-1] == last
    stages = [config.schedule.stage_at(update) for update in range(config.num_updates)]
    lengths = [stages.count(i) for i in range(len(ends))]
    assert lengths == np.diff((0, *ends)).tolist()


INVALID = [
    (
        (0.5, 0.6),
        {},
        "curriculum.stages=[0.5, 0.6]: fractions must add up to 1, not 1.1",
    ),
    (
        (0.0, 1.0),
        {},
        "curriculum.stages[0].fraction=0.0: must be greater than 0 and at most 1",
    ),
    (
        (0.5, 0.5),
        {"env": {"name": "other"}},
        "curriculum.stages='team_1': the last stage must be the environment of the run",
    ),
    (
        (0.05, 0.95),
        {},
        "total_timesteps=512: gives 8 updates, too few for 2 stages; "
        "make it at least 1280",
    ),
]


@pytest.mark.parametrize(("fractions", "changes", "message"), INVALID)
def test_an_invalid_curriculum_gives_an_error_of_one_line(fractions, changes, message):
    fields = {"env": {"name": "team_1"}, **changes}
    with pytest.raises(ConfigError) as error:
        toy.config(**fields, curriculum=curriculum(*fractions))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_advice_on_too_few_updates_suffices():
    stages = curriculum(0.05, 0.95)
    env = {"name": "team_1"}
    with pytest.raises(ConfigError, match=r"make it at least 1280$"):
        toy.config(env=env, curriculum=stages)
    config = toy.config(env=env, curriculum=stages, total_timesteps=1280)
    assert config.schedule.stage_ends == (1, 20)


def test_a_curriculum_is_a_choice_or_a_list():
    def load(override):
        sizes = ["env=smax_20v20", "total_timesteps=1e7", "num_envs=64"]
        return jmarl.load_config("spectra_qmix_plus", [*sizes, override])

    three = load("curriculum=5v5_10v10_20v20")
    assert three.stage_envs == ("smax_5v5", "smax_10v10", "smax_20v20")
    pair = "[{env: smax_5v5, fraction: 0.3}, {env: smax_20v20, fraction: 0.7}]"
    assert load(f"curriculum.stages={pair}") == load("curriculum=5v5_20v20")
    message = r"^curriculum.stages=smax_5x5: unknown environment"
    with pytest.raises(ConfigError, match=message):
        load(f"curriculum.stages={pair.replace('5v5', '5x5')}")
    message = r"^curriculum=5v5: unknown choice; did you mean 5v5_20v20"
    with pytest.raises(ConfigError, match=message):
        load("curriculum=5v5")


@dataclasses.dataclass(frozen=True)
class TwoSteps(LearningConfig):
    steps_per_update = 2


@pytest.mark.parametrize("parts", [(), ("actor", "critic")])
def test_schedules_continue_and_moments_are_reset(parts):
    """Adam's first step is the learning rate times the negative sign of the gradient."""
    cfg = TwoSteps(0.1, True, 1e-5, 0.0, 1e9, gamma=1.0, reward_scale=1.0)
    tx = optimizer(cfg, num_updates=10)
    tx = by_part(dict.fromkeys(parts, tx)) if parts else tx
    params = {"actor": jnp.ones(2), "critic": jnp.ones(3)}
    old = tx.init(params)
    for _ in range(6):
        _, old = tx.update(params, old, params)
    state = keep_schedules(tx.init(params), old)
    grads = jax.tree.map(lambda x: -7 * x, params)
    changes, _ = tx.update(grads, state, params)
    for x in jax.tree.leaves(changes):
        np.testing.assert_allclose(x, 0.1 * (1 - 3 / 10), rtol=1e-4)


SMALL = (
    "env=probe_cue",
    "num_envs=8",
    "rollout_length=4",
    "total_timesteps=128",
    "network.torso=[4]",
    "network=mlp",
)
SYSTEMS = {
    "vdn": ("system.batch_size=8", "system.replay_size=64", "system.gradient_steps=1"),
    "qmix": (
        "system.batch_size=8",
        "system.replay_size=64",
        "system.gradient_steps=1",
        "system.mixer.embed=2",
    ),
    "ippo": ("system.minibatches=1",),
}


def config(system, env, **changes):
    base = jmarl.load_config(system, [*SMALL, *SYSTEMS[system]])
    return dataclasses.replace(base, env={"name": env}, **changes)


def fill_with_numbers(tree):
    """Fill each leaf with 1, 2, ..., so that all values differ. Random keys are kept."""

    def fill(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        numbers = 1 + jnp.arange(x.size)
        return numbers.reshape(x.shape).astype(x.dtype)

    return jax.tree.map(fill, tree)


def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


KEPT = {"vdn": ("params", "target"), "ippo": ("params", "value_stats")}
RESET = {"vdn": ("updates", "replay"), "ippo": ("updates",)}


@pytest.mark.parametrize(
    ("system", "reset"), [("vdn", True), ("ippo", True), ("ippo", False)]
)
def test_the_next_stage_keeps_what_is_learned_and_resets_the_rest(system, reset):
    _, env, small_system = build_run(config(system, "cue_2"))
    _, next_env, next_system = build_run(config(system, "cue_3"))
    runner = init_runner(env, small_system, 8, jax.random.key(0))
    learner = fill_with_numbers(runner.learner)
    before = runner.replace(learner=learner, env_steps=jnp.uint32(77_000))
    kept = drop_env_state(before)
    after = continue_in_env(next_env, next_system, 8, kept, reset_optimizer=reset)
    fresh = init_runner(next_env, next_system, 8, before.key)
    for name in KEPT[system]:
        assert_trees_equal(getattr(after.learner, name), getattr(before.learner, name))
    for name in RESET[system]:
        assert_trees_equal(getattr(after.learner, name), getattr(fresh.learner, name))
    assert_trees_equal(after.timestep, fresh.timestep)
    assert after.timestep.reward.shape == (8, 3) and after.env_steps == 77_000
    if system == "vdn":
        rate = next_system.explore(after.env_steps)
        assert rate == next_system.explore(jnp.float32(77_000))
        assert rate < next_system.explore(jnp.float32(0))
    opt_state = before.learner.opt_state
    if reset:
        opt_state = keep_schedules(fresh.learner.opt_state, opt_state)
        nodes = jax.tree.leaves(after.learner.opt_state, is_leaf=is_schedule)
        schedules = [node for node in nodes if is_schedule(node)]
        assert schedules and all(schedule.count == 1 for schedule in schedules)
    assert_trees_equal(after.learner.opt_state, opt_state)


def test_an_error_about_a_mixer_of_one_team_size_names_it_and_gives_advice():
    halves = CurriculumConfig((StageConfig("cue_2", 0.5), StageConfig("cue_3", 0.5)))
    qmix = config("qmix", "cue_3", curriculum=halves)
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda key: train(qmix, key), jax.random.key(0))
    text = str(error.value)
    assert text.startswith("curriculum.stages=cue_2: parameter params/mixer/params/")
    advice = f"its shape depends on the size of the team; {TEAM_SIZE_ADVICE}"
    assert text.endswith(advice)


def save_run(folder, config):
    """Write a run folder with one checkpoint, whose values all differ; return its state."""
    folder.mkdir()
    run_folder.write_config(folder, config)
    programs = stage_programs(build_run(config))
    state = fill_with_numbers(programs.init(seed_keys(config).init))
    checkpoints = Checkpoints(
        folder / "checkpoints", keep=1, verify=True, warn=pytest.fail
    )
    meta = {
        "position": loop.initial_progress(config)._asdict(),
        "score": None,
        "versions": run_folder.versions(),
    }
    checkpoints.save(3, state, meta)
    checkpoints.close()
    return jax.device_get(state)


def assert_equals_broadcast(x, y):
    np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape))


@pytest.mark.parametrize(
    ("system", "source_seeds", "seeds"),
    [("vdn", 1, 2), pytest.param("ippo", 2, 2, marks=pytest.mark.slow)],
)
def test_a_run_starts_with_the_parameters_of_another(
    system, source_seeds, seeds, tmp_path
):
    folder = tmp_path / "source"
    source = save_run(folder, config(system, "cue_2", num_seeds=source_seeds))
    cfg = config(system, "cue_3", num_seeds=seeds, init_from=str(folder))
    built = build_run(cfg)
    fresh = stage_programs(built).init(seed_keys(cfg).init)
    learner = apply_warm_start(fresh, load_warm_start(built)).runner.learner
    expected = {
        "params": source.best.params,
        "target": source.best.params,
        "value_stats": source.runner.learner.value_stats,
    }
    taken_over = {name: getattr(learner, name) for name in KEPT[system]}
    for name, tree in taken_over.items():
        jax.tree.map(assert_equals_broadcast, tree, expected[name])
    initial = {name: getattr(fresh.runner.learner, name) for name in taken_over}
    assert_trees_equal(learner.replace(**initial), fresh.runner.learner)
    # No two arrays share a buffer, because a chunk donates its runner.
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(taken_over)]
    assert len(buffers) == len(set(buffers))


def test_a_warm_start_is_reported_and_needs_its_source_until_the_first_checkpoint(
    tmp_path, monkeypatch, capsys
):
    source, folder = tmp_path / "source", tmp_path / "run"
    saved_state = save_run(source, toy.config(env={"name": "bandit_2"}))
    initial_params = []

    def train(ctx, state, progress, saved, real=loop.train):
        initial_params.append(jax.device_get(state.runner.learner.params))
        if len(initial_params) == 1:
            return state, progress, "SIGTERM"
        return real(ctx, state, progress, saved)

    monkeypatch.setattr(loop, "train", train)
    three_agents = {"env": {"name": "bandit_3"}}
    cfg = toy.config(**three_agents, init_from=str(source), run_dir=str(folder))
    assert run(cfg) == 75
    line = f"starts with the best parameters of {source}"
    assert line in capsys.readouterr().out
    assert run(run_folder.resume_config(str(folder))) == 0
    line = "holds no checkpoint yet; starts from the beginning"
    assert line in capsys.readouterr().out
    for params in initial_params:
        assert_trees_equal(params, saved_state.best.params)
    source.rename(tmp_path / "gone")
    assert run_folder.read_config(folder).init_from == str(source)
    message = r"^init_from=x: cannot change when a run is resumed"
    with pytest.raises(ConfigError, match=message):
        run_folder.resume_config(str(folder), ["init_from=x"])
    extended = run_folder.resume_config(str(folder), ["total_timesteps=640"])
    assert run(extended) == 0


@pytest.mark.parametrize(
    ("source_changes", "changes", "message"),
    [
        (
            {"num_seeds": 3},
            {"num_seeds": 2},
            "has 3 seeds and this run 2; set num_seeds=3, or name a run with one seed",
        ),
        (
            {},
            {"env": {"name": "bandit_of_4"}},
            "parameter params/logits is float32[4] for bandit_of_4 and float32[3] for "
            "bandit_2; observations or actions of a unit",
        ),
        (
            {},
            {"network": toy.Network(width=2)},
            "parameter params/bias is float32[2] for bandit_3 and float32[1] for bandit_2; "
            "the networks differ (network.width=2 and 1); use the same",
        ),
        (None, {}, "no run folder (it does not exist)"),
    ],
)
def test_an_unusable_warm_start_is_rejected_before_compilation(
    source_changes, changes, message, tmp_path, monkeypatch
):
    def compile_run(*_, **__):
        pytest.fail("compiled")

    monkeypatch.setattr(run_module, "compile_run", compile_run)
    source, folder = tmp_path / "source", tmp_path / "run"
    if source_changes is not None:
        save_run(source, toy.config(env={"name": "bandit_2"}, **source_changes))
    fields = {
        "env": {"name": "bandit_3"},
        "init_from": str(source),
        "run_dir": str(folder),
    }
    with pytest.raises(ConfigError) as error:
        run(toy.config(**(fields | changes)))
    text = str(error.value)
    assert message in text
    assert text.startswith("init_from=") and "\n" not in text
    assert not folder.exists()


def test_a_warm_start_from_a_run_without_checkpoint_is_rejected(tmp_path):
    run_folder.write_config(tmp_path, toy.config(env={"name": "bandit_2"}))
    cfg = toy.config(env={"name": "bandit_3"}, init_from=str(tmp_path))
    message = f"^init_from={tmp_path}: holds no checkpoint yet"
    with pytest.raises(ConfigError, match=message):
        load_warm_start(build_run(cfg))


def test_the_pure_function_rejects_a_warm_start():
    with pytest.raises(ConfigError, match=r"^init_from='x': "):
        train(toy.config(init_from="x"), jax.random.key(0))


def test_a_transfer_table_agrees_with_an_evaluation(tmp_path, capsys):
    folder = tmp_path / "run"
    save_run(folder, toy.config(env={"name": "bandit_2"}, num_seeds=2))
    transfer, evaluation = tmp_path / "transfer.json", tmp_path / "evaluation.json"
    envs = "bandit_2, bandit_3"
    assert transfer_run(str(folder), envs, episodes=32, json=str(transfer)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["*", "bandit_2"]] * 4
    seeds = [["bandit_3", "seed", str(i)] for i in (0, 0, 1, 1)]
    assert [line.split()[:3] for line in lines[5:]] == seeds
    assert evaluate_run(str(folder), episodes=32, json=str(evaluation)) == 0
    table = json.loads(transfer.read_text())
    assert table["trained_on"] == ["bandit_2"]
    assert table["envs"]["bandit_2"] == json.loads(evaluation.read_text())
    assert table["envs"]["bandit_3"]["results"]["greedy"]["return"][1]["mean"] == 1.0


def test_a_mixer_of_one_team_size_limits_learning_but_not_acting():
    """The agents' parameters fit both sizes, those of QMIX's mixer only their own."""

    def build(env):
        sizes = ["network.embed_dim=8", "num_envs=8", "total_timesteps=512"]
        return build_run(jmarl.load_config("spectra_qmix", [f"env={env}", *sizes]))

    two, three = build("smax_2v2"), build("smax_3v3")
    check_acting("envs", "smax_2v2", two, three)
    with pytest.raises(ConfigError, match=r"^init_from=x: parameter params/mixer/"):
        check_fit("init_from", "x", two, three)


@pytest.mark.parametrize(
    ("envs", "message"),
    [
        (
            "bandit_3,bandit_of_4",
            "envs=bandit_of_4: parameter params/logits is float32[4] for bandit_of_4 and "
            "float32[3] for bandit_2",
        ),
        ("bandit_3,bandit_x", "envs=bandit_x: unknown environment"),
        (",", "envs=',': must name an environment"),
    ],
)
def test_an_unusable_environment_of_a_transfer_table_is_rejected_before_evaluation(
    envs, message, tmp_path
):
    run_folder.write_config(tmp_path, toy.config(env={"name": "bandit_2"}))
    with pytest.raises(ConfigError) as error:
        transfer_run(str(tmp_path), envs)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
