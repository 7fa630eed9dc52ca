"""Memory of a run: the estimate, the limits of a machine, and the sizes that fit."""

import dataclasses
import itertools
import json
import os
from functools import partial

import jax
import pytest
import toy

import jmarl
from jmarl.config import RunConfig
from jmarl.config.compose import from_tree
from jmarl.learning.minibatch import check_batch
from jmarl.runs import device_memory
from jmarl.runs.compilation import compile_run, working_bytes
from jmarl.runs.device_memory import (
    Memory,
    bytes_on_devices,
    host_bytes,
    largest_num_envs,
    out_of_memory_text,
    smaller_sizes,
)
from jmarl.runs.exit_codes import ResourceError
from jmarl.runs.folder import read_tree, resume_config, write_config
from jmarl.runs.run import run
from jmarl.training.anakin import rollout
from jmarl.training.programs import (
    seed_keys,
    shardings_of,
    stage_programs,
    state_shapes,
    used_rollout_bytes,
)
from jmarl.training.stages import build_stages


toy.install()

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def stages_and_shapes(config: RunConfig):
    stages = build_stages(config)
    shapes = [state_shapes(stage.config, stage_programs(stage)) for stage in stages]
    return stages, shapes


def estimate_of(config: RunConfig, *experience_bytes) -> Memory:
    return device_memory.estimate(*stages_and_shapes(config), *experience_bytes)


def held_bytes(tree):
    """Return the bytes of the parts of real arrays on all devices."""
    shards = [shard for x in jax.tree.leaves(tree) for shard in x.addressable_shards]
    return sum(shard.data.nbytes for shard in shards)


def test_the_estimate_of_the_state_is_what_a_state_holds():
    config = toy.config(num_seeds=3, num_envs=16)
    (stage,) = build_stages(config)
    programs = stage_programs(stage)
    shapes = state_shapes(config, programs)
    init = jax.jit(programs.init, out_shardings=shardings_of(shapes))
    state = init(seed_keys(config).init)
    memory = estimate_of(config)
    assert memory.state == bytes_on_devices(state) == held_bytes(state)
    runner = state.runner
    acting = (runner.env_state, runner.timestep, runner.carry, runner.episode)
    assert memory.environments == held_bytes(acting) > 0
    assert memory.replay == 0


def test_the_estimate_of_the_experience_is_what_a_rollout_returns():
    config = toy.config(num_seeds=3, num_envs=16)
    (stage,) = build_stages(config)
    state = jax.jit(stage_programs(stage).init)(seed_keys(config).init)
    runner = jax.tree.map(lambda x: x[0], state.runner)
    length = config.rollout_length
    play = jax.jit(partial(rollout, stage.env, stage.system, length=length))
    _, experience, _ = play(runner, key=runner.key)
    assert estimate_of(config).experience == 3 * held_bytes(experience)


COMPACT = ["env=smax_3m", "num_envs=64", "rollout_length=64", "system.batch_size=8"]


def test_only_experience_that_the_update_reads_can_reject_a_run(monkeypatch):
    """Replay stores encoded observations, so XLA drops the observations of the rollout."""
    config = jmarl.load_config("vdn", [*COMPACT, "system.replay_size=4096"])
    returned = estimate_of(config)
    read = estimate_of(config, used_rollout_bytes)
    assert read.experience < returned.experience / 2
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: read.total)
    stages, shapes = stages_and_shapes(config)
    assert device_memory.check_estimate(stages, shapes) == read


@pytest.mark.slow
@pytest.mark.parametrize("system", ["ippo", "mappo", "sable", "vdn", "pqn_qmix"])
def test_a_compiled_run_needs_at_least_what_could_reject_it(system):
    config = jmarl.load_config(system, ["env=smax_3m", "num_envs=512"])
    stages, shapes = stages_and_shapes(config)
    sizes = {}
    programs = [stage_programs(stage) for stage in stages]
    compiled = compile_run(
        config, programs, shapes, fresh=True, check_memory=sizes.setdefault
    )
    compiled.close()
    needed = bytes_on_devices(shapes[0]) + sizes[0]
    assert estimate_of(config, used_rollout_bytes).total <= needed


def test_an_evaluation_counts_only_beyond_the_experience_of_an_update():
    memory = Memory(100, 20, 3, experience=50, evaluation=40)
    assert (memory.state, memory.total) == (123, 173)
    assert memory._replace(evaluation=60).total == 183


def curriculum(*names: str) -> RunConfig:
    """Return a configuration of the toy system with stages of equal length."""
    stages = [{"env": name, "fraction": 1 / len(names)} for name in names]
    config = toy.config(env={"name": names[-1]})
    tree = {**dataclasses.asdict(config), "curriculum": {"stages": stages}}
    return from_tree(tree)


def test_the_largest_stage_is_estimated():
    with toy.teams():
        small = toy.config(env={"name": "cue_2"})
        large = toy.config(env={"name": "cue_3"})
        both = estimate_of(curriculum("cue_3", "cue_2"))
        assert both.experience == estimate_of(large).experience
        assert both.evaluation == estimate_of(small).evaluation
        assert both.experience > estimate_of(small).experience


FITTING = {
    "ippo": (160, ["system.minibatches=4"]),
    "mam_ppo": (160, ["system.minibatches=2", "num_seeds=2"]),
    "vdn": (104, ["system.replay_size=1_000_000"]),
}


@pytest.mark.parametrize("system", FITTING)
def test_the_largest_num_envs_fits_and_the_next_does_not(system, monkeypatch):
    """The search traces nothing, but traced estimates confirm its result."""
    num_envs, overrides = FITTING[system]
    common = ["env=smax_3m", "rollout_length=16", "eval.episodes=8", "num_envs=32_000"]
    config = jmarl.load_config(system, [*common, *overrides])

    def size(num_envs):
        return estimate_of(dataclasses.replace(config, num_envs=num_envs)).total

    memory, limit = estimate_of(config), size(num_envs) + 10
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    fitting = largest_num_envs(config, memory, memory.total)
    unit = 8 * (config.system.num_minibatches or 1)
    assert fitting % unit == 0
    assert size(fitting) <= limit < size(fitting + unit)


def test_an_odd_num_envs_has_odd_neighbors(monkeypatch):
    """Without a divisor of 8 there is one shard and one device, before and after."""
    overrides = ["env=smax_3m", "num_envs=3333", "system.minibatches=3"]
    config = jmarl.load_config("ippo", overrides)
    memory, half = estimate_of(config), dataclasses.replace(config, num_envs=1665)
    limit = estimate_of(half).total
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    assert largest_num_envs(config, memory, memory.total) == 1665


def test_a_smaller_num_envs_may_have_more_updates_than_a_run_can_count(monkeypatch):
    """The memory does not depend on the length of the run."""
    long = ["total_timesteps=1e12", "num_envs=8_000_000", "system.minibatches=1"]
    config = jmarl.load_config("ippo", ["env=smax_3m", *long])
    memory = estimate_of(config)
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: memory.total // 1000)
    assert 0 < largest_num_envs(config, memory, memory.total) < 8_000


def test_temporary_arrays_are_assumed_to_be_proportional_to_num_envs(monkeypatch):
    config = jmarl.load_config("ippo", ["env=smax_3m", "num_envs=3200"])
    memory = estimate_of(config)
    half = dataclasses.replace(config, num_envs=1600)
    limit = estimate_of(half).total + 10**9
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    assert largest_num_envs(config, memory, memory.total + 2 * 10**9) == 1600


def group_file(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_the_limit_of_a_control_group_or_of_one_above_it_counts(tmp_path):
    group_file(tmp_path, "proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    assert host_bytes(tmp_path) == MACHINE
    group_file(tmp_path, "sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n")
    assert host_bytes(tmp_path) == MACHINE
    group_file(tmp_path, "sys/fs/cgroup/slurm/job_7/memory.max", "1000\n")
    assert host_bytes(tmp_path) == 1000
    group_file(tmp_path, "sys/fs/cgroup/memory.max", "999\n")
    assert host_bytes(tmp_path) == 999


def test_the_limit_of_a_control_group_of_version_1_counts(tmp_path):
    groups = "9:name=systemd:/\n4:cpu,memory:/docker/a1\n0::/\n"
    group_file(tmp_path, "proc/self/cgroup", groups)
    folder = "sys/fs/cgroup/memory"
    unlimited = f"{2**63 - 4096}\n"
    group_file(tmp_path, f"{folder}/memory.limit_in_bytes", unlimited)
    assert host_bytes(tmp_path) == MACHINE
    group_file(tmp_path, f"{folder}/docker/a1/memory.limit_in_bytes", "2000\n")
    assert host_bytes(tmp_path) == 2000


def test_without_control_groups_the_machine_is_the_limit(tmp_path, monkeypatch):
    assert host_bytes(tmp_path) == MACHINE
    monkeypatch.delattr(os, "sysconf")
    assert host_bytes(tmp_path) is None


class Device:
    """Device of an accelerator with a limit of its allocator."""

    platform = "gpu"

    def __init__(self, stats):
        self.memory_stats = lambda: stats


@pytest.mark.parametrize(
    ("stats", "limit"), [({"bytes_limit": 500}, 1000), ({}, None), (None, None)]
)
def test_the_limits_of_accelerators_add_up(monkeypatch, stats, limit):
    devices = [Device(stats), Device(stats)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    assert device_memory.device_bytes(toy.config()) == limit


def test_cpu_devices_share_the_memory_of_the_machine():
    assert jax.local_device_count() > 1
    assert device_memory.device_bytes(toy.config()) == host_bytes()


def run_with_limit(monkeypatch, limit, **changes):
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    return run(toy.config(**changes))


def test_a_run_that_cannot_fit_leaves_no_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with pytest.raises(ResourceError, match="num_envs=8: needs at least "):
        run_with_limit(monkeypatch, 1_000, run_dir=str(folder))
    assert not folder.exists()


def rejection(config, monkeypatch, limit):
    """Return the text that rejects a configuration on devices with a limit in bytes."""
    stages, shapes = stages_and_shapes(config)
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    with pytest.raises(ResourceError) as error:
        device_memory.check_estimate(stages, shapes)
    return str(error.value)


def test_a_rejection_names_seeds_that_fit_where_no_num_envs_does(monkeypatch):
    config = toy.config(num_seeds=10, num_envs=16)
    two = dataclasses.replace(config, num_seeds=2, num_envs=8)
    limit = estimate_of(two, used_rollout_bytes).total
    text = rejection(config, monkeypatch, limit)
    assert "; num_envs=8 can fit with num_seeds=2; " in text


LARGE_PARTS = {
    "system.replay_size": ("vdn", "system.replay_size=2_000_000_000"),
    "rollout_length": ("ippo", "rollout_length=1_000_000"),
    "eval.episodes": ("ippo", "eval.episodes=1_000_000_000"),
    "a smaller network": ("ippo", "network.torso=[100000,100000]"),
}


@pytest.mark.parametrize("change", LARGE_PARTS)
def test_a_rejection_names_the_part_that_is_too_large(monkeypatch, change):
    system, override = LARGE_PARTS[change]
    config = jmarl.load_config(system, ["env=smax_3m", "num_envs=64", override])
    text = rejection(config, monkeypatch, 10**9)
    assert "; even with num_envs=" in text
    assert change in text.split("; ")[-2]


def test_arch_check_memory_skips_the_check(tmp_path, monkeypatch):
    arch = dataclasses.replace(toy.config().arch, check_memory=False)
    config = toy.config(arch=arch)
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: 1_000)
    device_memory.check_estimate(*stages_and_shapes(config))


def test_nothing_is_checked_where_the_memory_is_not_known(monkeypatch):
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: None)
    device_memory.check_estimate(*stages_and_shapes(toy.config()))


def test_an_older_run_may_be_resumed_without_the_check(tmp_path):
    config = jmarl.load_config("ippo", ["env=smax_3m"])
    write_config(tmp_path, config)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("  check_memory: true\n", ""))
    assert "check_memory" not in read_tree(tmp_path)["arch"]
    assert resume_config(str(tmp_path)).arch.check_memory
    changed = resume_config(str(tmp_path), ["arch.check_memory=false"])
    assert not changed.arch.check_memory


def test_temporary_arrays_are_compared_before_the_first_step(tmp_path, monkeypatch):
    """The estimate fits, but a compiled chunk does not. A new run leaves no folder."""
    folder = tmp_path / "run"
    limit = estimate_of(toy.config()).total
    with pytest.raises(ResourceError) as error:
        run_with_limit(monkeypatch, limit, run_dir=str(folder))
    line = str(error.value)
    assert line.startswith("num_envs=8: needs ") and "the devices have" in line
    assert "; the run needs less with rollout_length=4; " in line
    assert "\n" not in line
    assert not folder.exists()


def test_a_resumed_run_that_needs_too_much_memory_keeps_its_folder(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder))) == 0
    limit = estimate_of(toy.config()).total
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: limit)
    longer = resume_config(str(folder), ["total_timesteps=1024"])
    assert run(longer) == 3
    captured = capsys.readouterr()
    assert "; the run needs less with rollout_length=4; " in captured.err
    assert "resume with" not in captured.out  # a plain resume would fail again
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)


def test_the_chunk_of_a_later_stage_is_checked_before_the_stage_starts():
    checked = []

    def check(stage, working):
        checked.append((stage, working > 0))
        if stage == 1:
            raise ResourceError("too large")

    with toy.teams():
        config = curriculum("bandit_2", "bandit_3")
        programs = [stage_programs(stage) for stage in build_stages(config)]
        shapes = [state_shapes(config, program) for program in programs]
        compiled = compile_run(
            config, programs, shapes, fresh=False, check_memory=check
        )
        assert set(checked) == {(0, True)}
        compiled.stage(0)
        with pytest.raises(ResourceError, match="too large"):
            compiled.stage(1)
        compiled.close()


def test_working_bytes_are_those_of_a_compiled_program():
    """Temporary arrays and new outputs count on each device, donated arguments do not."""

    def bytes_of(program, **options):
        shape = jax.ShapeDtypeStruct((256, 256), "float32")
        compiled = jax.jit(program, **options).lower(shape).compile()
        return working_bytes(compiled.memory_analysis(), 2)

    square = 2 * 256 * 256 * 4
    assert bytes_of(lambda x: x + 1) == square
    assert bytes_of(lambda x: x + 1, donate_argnums=0) == 0
    assert bytes_of(lambda x: jax.numpy.sort(x)[0, 0]) >= square
    assert working_bytes(None, 2) == 0


def test_smaller_sizes_are_valid_and_smaller():
    config = jmarl.load_config("ippo", ["env=smax_3m"])

    def sized(num_envs, minibatches):
        system = dataclasses.replace(config.system, minibatches=minibatches)
        return dataclasses.replace(config, num_envs=num_envs, system=system)

    for minibatches, units in itertools.product([1, 2, 3], [1, 2, 3, 5, 8, 12, 88]):
        num_envs = minibatches * units
        changes = [c.split("=") for c in smaller_sizes(sized(num_envs, minibatches))]
        for key, value in changes:
            size = int(value)
            if key == "num_envs":
                assert 0 < size < num_envs
                check_batch(size, minibatches)
            elif key == "system.minibatches":
                assert size > minibatches
                check_batch(num_envs, size)
            else:
                assert (key, size) == ("rollout_length", config.rollout_length // 2)
        assert changes


def test_running_out_of_memory_names_what_needs_less():
    config = jmarl.load_config("ippo", ["num_envs=16", "system.minibatches=1"])
    memory = Memory(100, 0, 20, 3, 4)
    text = out_of_memory_text(config, memory, MemoryError())
    assert text.startswith("num_envs=16: out of memory (MemoryError); ")
    assert text.endswith("needs less with num_envs=8 or system.minibatches=2")
    text = out_of_memory_text(config, memory, RuntimeError("first\nsecond"))
    assert "(first)" in text
    assert "\n" not in text
    config = jmarl.load_config("vdn", ["num_envs=16"])
    text = out_of_memory_text(config, memory._replace(replay=10**9), MemoryError())
    assert text.endswith("with a smaller system.replay_size or num_envs=8")
