"""What goes from one team size to another: stages of a run, the start of another run, and a table of worlds."""

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
from jmarl.learning.optimizers import by_part, keep_schedules, optimizer
from jmarl.runs import folder as run_folder
from jmarl.runs import loop
from jmarl.runs import run as run_module
from jmarl.runs.checkpoint import Checkpoints
from jmarl.runs.evaluate_saved import evaluate_run, transfer_run
from jmarl.runs.run import run
from jmarl.runs.warm_start import apply_warm_start, load_warm_start
from jmarl.training import programs
from jmarl.training.anakin import continue_in_env, drop_env_state, init_runner
from jmarl.training.build import BuiltRun, build_run
from jmarl.training.compatibility import TEAM_SIZE_ADVICE, check_acting, check_fit
from jmarl.training.train import train


@pytest.fixture(scope="module", autouse=True)
def teams():
    toy.install()
    with toy.teams():
        yield


def stages(*shares):
    return CurriculumConfig(
        tuple(StageConfig(f"team_{i}", share) for i, share in enumerate(shares))
    )


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
    config = toy.config(
        total_timesteps=evaluations * 128,
        env={"name": last},
        curriculum=stages(*shares),
    )
    assert config.num_updates == 2 * evaluations and config.stage_ends == ends
    assert len(config.stage_envs) == len(ends) and config.stage_envs[-1] == last
    of_updates = [
        sum(config.stage_at(update) == i for update in range(config.num_updates))
        for i in range(len(ends))
    ]
    assert of_updates == [
        end - begin for begin, end in zip((0, *ends), ends, strict=False)
    ]


BAD = [
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
        (0.1, 0.9),
        {},
        "eval.every=128: gives 4 evaluations, but each of 2 stages must end with one; total_timesteps must be at least 640",
    ),
]


@pytest.mark.parametrize(("shares", "changes", "message"), BAD)
def test_stages_that_cannot_be_are_one_line(shares, changes, message):
    with pytest.raises(ConfigError) as error:
        toy.config(
            **{"env": {"name": "team_1"}, "curriculum": stages(*shares), **changes}
        )
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_what_is_advised_where_evaluations_are_too_few_is_enough():
    rows = toy.config().rows_per_update
    config = toy.config(
        total_timesteps=100 * rows, env={"name": "team_1"}, curriculum=stages(0.5, 0.5)
    )
    tight = dataclasses.replace(config.eval, every=100 * rows)
    with pytest.raises(ConfigError, match=f"make it at most {50 * rows}$"):
        dataclasses.replace(config, eval=tight)
    assert dataclasses.replace(
        config, eval=dataclasses.replace(tight, every=50 * rows)
    ).stage_ends == (50, 100)


def test_a_curriculum_is_a_choice_or_a_list():
    words = ["env=smax_20v20", "total_timesteps=1e7", "num_envs=64"]
    chosen = jmarl.load_config(
        "spectra_qmix_plus", [*words, "curriculum=5v5_10v10_20v20"]
    )
    assert chosen.stage_envs == ("smax_5v5", "smax_10v10", "smax_20v20")
    pair = "[{env: smax_5v5, fraction: 0.3}, {env: smax_20v20, fraction: 0.7}]"
    own = jmarl.load_config("spectra_qmix_plus", [*words, f"curriculum.stages={pair}"])
    assert own == jmarl.load_config(
        "spectra_qmix_plus", [*words, "curriculum=5v5_20v20"]
    )
    with pytest.raises(
        ConfigError, match=r"^curriculum.stages=smax_5x5: unknown environment"
    ):
        jmarl.load_config(
            "spectra_qmix_plus",
            [*words, f"curriculum.stages={pair.replace('5v5', '5x5')}"],
        )
    with pytest.raises(
        ConfigError, match=r"^curriculum=5v5: unknown choice; did you mean 5v5_20v20"
    ):
        jmarl.load_config("spectra_qmix_plus", [*words, "curriculum=5v5"])


@pytest.mark.parametrize("parts", [(), ("actor", "critic")])
def test_schedules_go_on_while_moments_begin_anew(parts):
    """Adam's first step is the learning rate against the sign of the gradient, whatever its size."""
    tx = optimizer(0.1, 1e9, anneal=True, steps_per_update=2, num_updates=10)
    tx = by_part(tx, parts) if parts else tx
    params = {"actor": jnp.ones(2), "critic": jnp.ones(3)}
    old = tx.init(params)
    for _ in range(6):
        _, old = tx.update(params, old, params)
    state = keep_schedules(tx.init(params), old)
    change, _ = tx.update(jax.tree.map(lambda x: -7 * x, params), state, params)
    for x in jax.tree.leaves(change):
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


def config(system, world, **changes):
    return dataclasses.replace(
        jmarl.load_config(system, [*SMALL, *SYSTEMS[system]]),
        env={"name": world},
        **changes,
    )


def counted(tree, start):
    """Other numbers in every leaf: 1, 2, ... from ``start``; keys stay."""

    def fill(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return (
            x if key else (start + jnp.arange(x.size)).reshape(x.shape).astype(x.dtype)
        )

    return jax.tree.map(fill, tree)


@pytest.mark.parametrize(
    ("system", "reset"), [("vdn", True), ("ippo", True), ("ippo", False)]
)
def test_the_next_stage_has_what_was_learnt_and_all_else_anew(system, reset):
    small, large = (build_run(config(system, f"cue_{n}"))[1:] for n in (2, 3))
    before = init_runner(*small, 8, jax.random.key(0))
    before = before.replace(
        learner=counted(before.learner, 1), env_steps=jnp.uint32(77_000)
    )
    after = continue_in_env(*large, 8, drop_env_state(before), reset_optimizer=reset)
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
    assert system == "ippo" or explore(after.env_steps) == explore(
        jnp.float32(77_000)
    ) < explore(jnp.float32(0))
    if reset:
        same(
            after.learner.opt_state,
            keep_schedules(fresh.learner.opt_state, before.learner.opt_state),
        )
        counts = [
            x
            for x in jax.tree.leaves(after.learner.opt_state, is_leaf=_is_schedule)
            if _is_schedule(x)
        ]
        assert counts and all(x.count == 1 for x in counts)
    else:
        same(after.learner.opt_state, before.learner.opt_state)


def _is_schedule(x):
    return isinstance(x, optax.ScaleByScheduleState)


def test_a_mixer_that_depends_on_the_size_is_named_with_what_does_not():
    halves = CurriculumConfig((StageConfig("cue_2", 0.5), StageConfig("cue_3", 0.5)))
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(
            lambda key: train(config("qmix", "cue_3", curriculum=halves), key),
            jax.random.key(0),
        )
    text = str(error.value)
    assert text.startswith("curriculum.stages=cue_2: parameter params/mixer/params/")
    assert text.endswith(
        f"its shape depends on the size of the team; {TEAM_SIZE_ADVICE}"
    )


def saved(folder, config, start=1):
    """A run folder whose checkpoint holds other numbers in every leaf."""
    folder.mkdir()
    run_folder.write_config(folder, config)
    plain = programs.stage_programs(build_run(config))
    state = counted(plain.init(programs.seed_keys(config).init), start)
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


@pytest.mark.parametrize(("system", "seeds", "ours"), [("vdn", 1, 2), ("ippo", 2, 2)])
def test_a_run_begins_with_the_parameters_of_another(system, seeds, ours, tmp_path):
    source = saved(tmp_path / "source", config(system, "cue_2", num_seeds=seeds))
    new = config(system, "cue_3", num_seeds=ours, init_from=str(tmp_path / "source"))
    _, env, made = build_run(new)
    plain = programs.stage_programs(BuiltRun(new, env, made))
    fresh = plain.init(programs.seed_keys(new).init)
    learner = apply_warm_start(fresh, load_warm_start(BuiltRun(new, env, made))).runner.learner
    expected = {"params": source.best.params}
    expected |= {"target": source.best.params} if system == "vdn" else {}
    expected |= (
        {"value_stats": source.runner.learner.value_stats} if system == "ippo" else {}
    )
    for name, tree in expected.items():
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape)),
            getattr(learner, name),
            tree,
        )
    kept = learner.replace(
        **{name: getattr(fresh.runner.learner, name) for name in expected}
    )
    jax.tree.map(np.testing.assert_array_equal, kept, fresh.runner.learner)
    buffers = [
        x.unsafe_buffer_pointer()
        for name in expected
        for x in jax.tree.leaves(getattr(learner, name))
    ]
    assert len(buffers) == len(set(buffers))


def test_a_run_that_begins_so_says_so_and_reads_the_source_until_it_has_a_checkpoint(
    tmp_path, monkeypatch, capsys
):
    source = saved(tmp_path / "source", toy.config(env={"name": "bandit_2"}))
    begun = []

    def train(s, state, at, saved, real=loop.train):
        begun.append(jax.device_get(state.runner.learner.params))
        return (state, at, "SIGTERM") if len(begun) == 1 else real(s, state, at, saved)

    monkeypatch.setattr(loop, "train", train)
    given = toy.config(
        env={"name": "bandit_3"},
        init_from=str(tmp_path / "source"),
        run_dir=str(tmp_path / "run"),
    )
    assert run(given) == 75
    assert (
        f"starts with the best parameters of {tmp_path}/source"
        in capsys.readouterr().out
    )
    assert run(run_folder.resume_config(str(tmp_path / "run"))) == 0
    assert (
        "holds no checkpoint yet; starts from the beginning" in capsys.readouterr().out
    )
    for params in begun:
        jax.tree.map(np.testing.assert_array_equal, params, source.best.params)
    (tmp_path / "source").rename(tmp_path / "gone")
    assert run_folder.read_config(tmp_path / "run").init_from == str(
        tmp_path / "source"
    )
    with pytest.raises(
        ConfigError, match=r"^init_from=x: cannot change when a run is resumed"
    ):
        run_folder.resume_config(str(tmp_path / "run"), ["init_from=x"])
    assert (
        run(run_folder.resume_config(str(tmp_path / "run"), ["total_timesteps=640"]))
        == 0
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            {"num_seeds": 3},
            {"num_seeds": 2},
            "has 3 seeds and this run 2; set num_seeds=3, or name a run with one seed",
        ),
        (
            {},
            {"env": {"name": "bandit_of_4"}},
            "parameter params/logits is float32[4] for bandit_of_4 and float32[3] for bandit_2; observations or actions of a unit",
        ),
        (
            {},
            {"network": toy.Network(width=2)},
            "parameter params/bias is float32[2] for bandit_3 and float32[1] for bandit_2; "
            "the networks differ (network.width=2 and 1); use the same",
        ),
        (None, {}, "no run folder (it has no config.yaml)"),
    ],
)
def test_parameters_that_cannot_begin_a_run_are_refused(
    theirs, ours, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        run_module, "compile_run", lambda *_, **__: pytest.fail("compiled")
    )
    if theirs is not None:
        saved(
            tmp_path / "source", toy.config(**{"env": {"name": "bandit_2"}, **theirs})
        )
    ours = {
        "env": {"name": "bandit_3"},
        "init_from": str(tmp_path / "source"),
        "run_dir": str(tmp_path / "run"),
        **ours,
    }
    with pytest.raises(ConfigError) as error:
        run(toy.config(**ours))
    assert (
        message in str(error.value)
        and str(error.value).startswith("init_from=")
        and "\n" not in str(error.value)
    )
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_saved_nothing_yet_gives_no_parameters(tmp_path):
    run_folder.write_config(tmp_path, toy.config(env={"name": "bandit_2"}))
    new = toy.config(env={"name": "bandit_3"}, init_from=str(tmp_path))
    with pytest.raises(
        ConfigError, match=f"^init_from={tmp_path}: holds no checkpoint yet"
    ):
        load_warm_start(build_run(new))


def test_the_pure_function_reads_no_folder():
    with pytest.raises(ConfigError, match=r"^init_from='x': "):
        train(toy.config(init_from="x"), jax.random.key(0))


def test_one_table_of_worlds_agrees_with_an_evaluation(tmp_path, capsys):
    saved(tmp_path / "run", toy.config(env={"name": "bandit_2"}, num_seeds=2))
    files = [str(tmp_path / name) for name in ("transfer.json", "evaluate.json")]
    assert (
        transfer_run(
            str(tmp_path / "run"), "bandit_2, bandit_3", episodes=32, json=files[0]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["*", "bandit_2"]] * 4
    assert [line.split()[:3] for line in lines[5:]] == [
        ["bandit_3", "seed", str(i)] for i in (0, 0, 1, 1)
    ]
    assert evaluate_run(str(tmp_path / "run"), episodes=32, json=files[1]) == 0
    table, alone = (json.loads(open(file).read()) for file in files)
    assert table["trained_on"] == ["bandit_2"]
    assert table["envs"]["bandit_2"] == alone
    assert table["envs"]["bandit_3"]["results"]["greedy"]["return"][1]["mean"] == 1.0


def test_a_mixer_that_binds_learning_to_a_team_does_not_bind_acting():
    """The agents' parameters fit both sizes, and those of QMIX's mixer only their own."""
    sizes = ["network.embed_dim=8", "num_envs=8", "total_timesteps=512"]
    here, there = (
        build_run(config)
        for config in (
            jmarl.load_config("spectra_qmix", [f"env=smax_{name}", *sizes])
            for name in ("2v2", "3v3")
        )
    )
    check_acting("envs", "smax_2v2", here, there)
    with pytest.raises(ConfigError, match=r"^init_from=x: parameter params/mixer/"):
        check_fit("init_from", "x", here, there)


@pytest.mark.parametrize(
    ("envs", "message"),
    [
        (
            "bandit_3,bandit_of_4",
            "envs=bandit_of_4: parameter params/logits is float32[4] for bandit_of_4 and float32[3] for bandit_2",
        ),
        ("bandit_3,bandit_x", "envs=bandit_x: unknown environment"),
        (",", "envs=',': must name an environment"),
    ],
)
def test_a_world_that_needs_other_parameters_is_refused_before_any_is_played(
    envs, message, tmp_path
):
    run_folder.write_config(tmp_path, toy.config(env={"name": "bandit_2"}))
    with pytest.raises(ConfigError) as error:
        transfer_run(str(tmp_path), envs)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
