"""Memory of a run: its estimate, the memory of the devices, and errors if it does not fit.

Before compilation the estimate counts the arrays of a stage, from their shapes and without
temporary arrays. If they do not fit, it counts only the experience that the update reads. That is
a lower bound, so a run that it rejects cannot fit. After compilation XLA reports what it needs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import jax

from jmarl.config import RunConfig
from jmarl.hosts import process_group
from jmarl.learning.minibatch import num_env_shards
from jmarl.platforms import has_target
from jmarl.runs.exit_codes import ResourceError
from jmarl.runs.progress import size_text
from jmarl.training.build import BuiltRun
from jmarl.training.programs import (
    State,
    number_of_bytes,
    rollout_bytes,
    run_mesh,
    used_rollout_bytes,
)


PARTS = {
    "learner": ("parameters and optimizer take", "choose a smaller network"),
    "replay": ("the replay buffer takes", "lower system.replay_size"),
    "environments": ("the environments take", "choose a smaller env"),
    "experience": ("the experience of one update takes", "lower rollout_length"),
    "evaluation": ("an evaluation takes", "lower eval.episodes"),
}
"""For each field of ``Memory`` a phrase, and the change that makes the part smaller."""


PREFIX = "num_envs="
"""Start of every message of this module."""


class Memory(NamedTuple):
    """Bytes of the arrays of a stage, over all seeds and devices."""

    learner: int
    """Parameters, optimizer, and the best parameters so far, on every device."""
    replay: int
    environments: int
    """Environments with the memory of the policy."""
    experience: int
    """Experience of one update."""
    evaluation: int
    """Environments of an evaluation, with the memory of the policy."""

    @property
    def state(self) -> int:
        """Bytes that are needed all the time."""
        return self.learner + self.replay + self.environments

    @property
    def total(self) -> int:
        """Bytes of an update or an evaluation, whichever needs more."""
        return self.state + max(self.experience, self.evaluation)

    @property
    def largest_part(self) -> str:
        """Field with the most bytes."""
        return max(self._fields, key=lambda name: getattr(self, name))


def check_estimate(stages: Sequence[BuiltRun], shapes: Sequence[State]) -> Memory:
    """Return the estimate of a run.

    Raises:
        ResourceError: If the run needs more memory than the devices have.
    """
    memory = estimate(stages, shapes)
    config = stages[-1].config
    limit = device_bytes(config)
    if not config.arch.check_memory or limit is None or memory.total <= limit:
        return memory
    needed = estimate(stages, shapes, used_rollout_bytes)
    check_fits(config, needed, needed.total, "needs at least")
    return needed


def check_fits(
    config: RunConfig, memory: Memory, needed: int, verb: str = "needs"
) -> None:
    """Check a number of bytes against the memory of the devices.

    Nothing is checked if ``arch.check_memory`` is false or that memory is not known.

    Args:
        config: Configuration of the run.
        memory: Estimate of the run.
        needed: Bytes over all devices.
        verb: Words before the number of bytes.

    Raises:
        ResourceError: If more bytes are needed than the devices have.
    """
    limit = device_bytes(config)
    if not config.arch.check_memory or limit is None or needed <= limit:
        return
    raise ResourceError(
        f"{PREFIX}{config.num_envs}: {verb} {size_text(needed)} of memory, but the "
        f"devices have {size_text(limit)}; {_fix(config, memory, needed)}; "
        "arch.check_memory=false skips this check"
    )


def _fix(config: RunConfig, memory: Memory, needed: int) -> str:
    fitting = largest_num_envs(config, memory, needed)
    if fitting and needed == memory.total:
        return f"the largest that can fit is num_envs={fitting}"
    if fitting:
        return f"the largest that fits is about num_envs={fitting}"
    smallest = _resize(config, _unit(config))
    memory, limit = _scale(memory, config, smallest), device_bytes(smallest) or 0
    if memory.total <= limit:
        return f"the run needs less with {' or '.join(smaller_sizes(config))}"
    if seeds := config.num_seeds * limit // memory.total:
        return f"num_envs={smallest.num_envs} can fit with num_seeds={seeds}"
    phrase, change = PARTS[memory.largest_part]
    size = size_text(getattr(memory, memory.largest_part))
    return f"even with num_envs={smallest.num_envs} {phrase} {size}: {change}"


def largest_num_envs(config: RunConfig, memory: Memory, needed: int) -> int:
    """Return the largest valid ``num_envs`` that fits the memory of the devices.

    The difference between ``needed`` and the estimate, such as temporary arrays, is assumed
    to be proportional to ``num_envs``.

    Args:
        config: Configuration of a run that does not fit.
        memory: Its estimate.
        needed: Bytes that it needs.

    Returns:
        Number of environments, or 0 if no number fits.
    """
    unit, beyond = _unit(config), needed - memory.total

    def fits(units: int) -> bool:
        smaller = _resize(config, units * unit)
        estimated = _scale(memory, config, smaller).total
        share = beyond * smaller.num_envs // config.num_envs
        return estimated + share <= (device_bytes(smaller) or 0)

    fitting, too_many = 0, config.num_envs // unit
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if fits(middle):
            fitting = middle
        else:
            too_many = middle
    return fitting * unit


def _unit(config: RunConfig) -> int:
    """Return a divisor of ``num_envs`` whose multiples keep all devices busy."""
    minibatches = config.system.num_minibatches or 1
    return num_env_shards(config.num_envs // minibatches) * minibatches


def _resize(config: RunConfig, num_envs: int) -> RunConfig:
    """Return a configuration with another ``num_envs`` and the same number of updates."""
    rows = -(-config.total_timesteps * num_envs // config.num_envs)  # rounded up
    return dataclasses.replace(config, num_envs=num_envs, total_timesteps=rows)


def _scale(memory: Memory, config: RunConfig, other: RunConfig) -> Memory:
    """Return the estimate for another ``num_envs``, without tracing anything."""

    def scale(n_bytes: int, new: int, old: int) -> int:
        return n_bytes * other.num_envs * new // (config.num_envs * old)

    def slots(of: RunConfig) -> int:
        return of.system.replay_rows // of.rows_per_update + 1

    devices = run_mesh(config).size
    return Memory(
        learner=memory.learner // devices * run_mesh(other).size,
        replay=scale(memory.replay, slots(other), slots(config)),
        environments=scale(memory.environments, 1, 1),
        experience=scale(memory.experience, 1, 1),
        evaluation=memory.evaluation,
    )


def estimate(
    stages: Sequence[BuiltRun],
    shapes: Sequence[State],
    experience_bytes: Callable[[BuiltRun, State], int] = rollout_bytes,
) -> Memory:
    """Estimate the memory of the largest stage, without temporary arrays.

    Args:
        stages: Stages of a run. Evaluations use the last.
        shapes: State of each stage, as shapes with shardings.
        experience_bytes: ``rollout_bytes`` or ``used_rollout_bytes``.
    """
    evaluation = _evaluation_bytes(stages[-1])
    estimates = [
        _estimate_stage(state, evaluation, experience_bytes(stage, state))
        for stage, state in zip(stages, shapes, strict=True)
    ]
    return max(estimates, key=lambda memory: memory.total)


def _estimate_stage(shapes: State, evaluation: int, experience: int) -> Memory:
    runner = shapes.runner
    replay = bytes_on_devices(runner.learner.replay)
    acting = (runner.env_state, runner.timestep, runner.carry, runner.episode)
    environments = bytes_on_devices(acting)
    return Memory(
        learner=bytes_on_devices(shapes) - replay - environments,
        replay=replay,
        environments=environments,
        experience=experience,
        evaluation=evaluation,
    )


def _evaluation_bytes(stage: BuiltRun) -> int:
    config, env, system = stage

    def start() -> Any:
        key, episodes = jax.random.key(0), config.eval.episodes
        return env.reset(key, episodes), system.carry(episodes)

    return config.num_seeds * number_of_bytes(jax.eval_shape(start))


def bytes_on_devices(shapes: Any) -> int:
    """Return the bytes of a tree on all devices. A replicated array counts once per device.

    Args:
        shapes: Arrays, or shapes with shardings.
    """
    return sum(
        math.prod(x.sharding.shard_shape(x.shape))
        * x.dtype.itemsize
        * x.sharding.num_devices
        for x in jax.tree.leaves(shapes)
    )


def device_bytes(config: RunConfig) -> int | None:
    """Return the memory of the devices of a run in bytes, or None if it is not known.

    It is not known if programs are traced for absent devices. CPU devices share the memory of the
    machine. All hosts count as equal to that of process 0.
    """
    return process_group.by_writer(_device_bytes, config)


def _device_bytes(config: RunConfig) -> int | None:
    if has_target():
        return None
    devices = run_mesh(config).devices.ravel()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit * devices.size
    if devices[0].platform != "cpu":
        return None
    on_host = host_bytes()
    return on_host and on_host * process_group.count()


def host_bytes(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Return the memory that this process may use, or None if it is not known.

    It is the memory of the machine, or a lower limit of the process's control group (version
    1 or 2) or of a group above it.

    Args:
        root: Folder that holds ``proc`` and ``sys``.
    """
    limits = list(_group_limits(root))
    with suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _group_limits(root: pathlib.Path) -> Iterator[int]:
    """Yield the limit of every control group of this process that has one."""
    groups = root / "proc" / "self" / "cgroup"
    lines = groups.read_text().splitlines() if groups.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = pathlib.PurePosixPath(path.lstrip("/"))
        for above in (group, *group.parents):
            # a group without limit holds the word "max"; a container hides outer groups
            with suppress(OSError, ValueError):
                yield int((folder / above / file).read_text())


def memory_text(config: RunConfig, memory: Memory) -> str:
    """Describe the estimate of a run, and the memory of the devices if it is known."""
    limit = device_bytes(config)
    available = f" of {size_text(limit)}" if limit else ""
    if memory.experience >= memory.evaluation:
        more = f"experience of one update {size_text(memory.experience)}"
    else:
        more = f"an evaluation {size_text(memory.evaluation)}"
    state = size_text(memory.state)
    return f"about {size_text(memory.total)}{available}: state {state}, {more}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of JAX or Python that reports too little memory."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError)


def is_own_message(message: str) -> bool:
    """Return True for a message on memory, after which a plain resume would fail again."""
    return message.startswith(PREFIX)


def out_of_memory_text(config: RunConfig, memory: Memory, error: BaseException) -> str:
    """Describe memory that ran out during a run, with valid sizes that need less."""
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    limit = device_bytes(config)
    available = f" (the devices have {size_text(limit)})" if limit else ""
    changes = smaller_sizes(config)
    if memory.largest_part == "replay":
        changes.insert(0, "a smaller system.replay_size")
    return (
        f"{PREFIX}{config.num_envs}: out of memory ({reason}); needs more than the "
        f"estimate of {size_text(memory.total)}{available}; "
        f"a new run needs less with {' or '.join(changes)}"
    )


def smaller_sizes(config: RunConfig) -> list[str]:
    """Return valid changes of a configuration that lower its memory, as ``key=value``."""
    unit, minibatches = _unit(config), config.system.num_minibatches
    half = config.num_envs // 2 // unit * unit
    sizes = [f"num_envs={half}"] if half else []
    if minibatches is not None:
        most = config.num_envs * minibatches // unit
        valid = (n for n in range(minibatches + 1, most + 1) if most % n == 0)
        sizes += [f"system.minibatches={n}" for n in itertools.islice(valid, 1)]
    return sizes or [f"rollout_length={max(1, config.rollout_length // 2)}"]
