"""The configuration of a run: frozen, typed, hashable, free of JAX."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from typing import Any, Literal

from jmarl.config.errors import check, check_range


def _increase(counts: list[int]) -> bool:
    """Whether each is more than the one before it, and the first more than 0."""
    return all(low < high for low, high in itertools.pairwise([0, *counts]))


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation: exactly one episode from each of ``episodes`` environments, greedy and sampled."""

    episodes: int
    every: int
    """Environment rows (T x B of a rollout) between evaluations."""
    absolute_factor: int
    """Episodes of the absolute metric, as a multiple of ``episodes``; 0 leaves it out."""

    def __post_init__(self) -> None:
        check_range("eval.episodes", self.episodes, 1)
        check_range("eval.every", self.every, 1)
        check_range("eval.absolute_factor", self.absolute_factor, 0)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints of a run, written after evaluations and on SIGTERM or Ctrl-C."""

    enabled: bool
    every: int
    """Evaluations between checkpoints."""
    keep: int
    """Checkpoints kept, not counting the best one's parameters."""
    verify: bool
    """Check the digest of what is restored."""
    exact: bool = True
    """Save the whole ``Runner``; without its environments and replay a run resumes as if it entered its world again."""

    def __post_init__(self) -> None:
        check_range("checkpoint.every", self.every, 1)
        check_range("checkpoint.keep", self.keep, 1)


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """How a run lies on the hardware. ``auto`` values are resolved before anything compiles."""

    name: Literal["auto", "cpu", "gpu", "tpu"]
    updates_per_chunk: int
    """Most updates in one compiled call; a chunk should last a few seconds at most."""
    compile_cache: str
    """Folder of the persistent compilation cache; empty switches it off."""

    def __post_init__(self) -> None:
        check_range("arch.updates_per_chunk", self.updates_per_chunk, 1)


@dataclasses.dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go besides the progress line and ``metrics.jsonl``, which are always written."""

    tensorboard: bool
    wandb: bool
    wandb_project: str
    wandb_mode: Literal["online", "offline", "disabled"]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """A part of a run: a world, and the share of the run's updates that learn in it."""

    env: str
    fraction: float


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Worlds to learn in one after the other, parameters being kept; without any, the run's own is the only one."""

    stages: tuple[StageConfig, ...] = ()
    reset_optimizer: bool = True
    """Whether the optimizer forgets its moments where a stage begins; schedules go on either way."""

    def __post_init__(self) -> None:
        shares = [stage.fraction for stage in self.stages]
        for i, share in enumerate(shares):
            check(
                0 < share <= 1,
                f"curriculum.stages[{i}].fraction",
                share,
                "must be greater than 0 and at most 1",
            )
        rule = f"fractions must add up to 1, not {sum(shares):g}"
        check(
            not shares or math.isclose(sum(shares), 1, abs_tol=1e-6),
            "curriculum.stages",
            shares,
            rule,
        )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. ``system`` and ``network`` have the classes that the system's module names."""

    system_name: str
    seed: int
    num_seeds: int
    total_timesteps: int
    num_envs: int
    rollout_length: int
    run_dir: str
    resume: str
    env: dict[str, Any]
    """``name`` and the options of that environment."""
    system: Any
    network: Any
    arch: ArchConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    logger: LoggerConfig
    init_from: str = ""
    """Folder of a run whose best parameters this one begins with."""
    curriculum: CurriculumConfig = CurriculumConfig()

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**32 - 1)
        for key in ("num_seeds", "total_timesteps", "num_envs", "rollout_length"):
            check_range(key, getattr(self, key), 1)
        rule = f"with num_seeds={self.num_seeds} the last seed is beyond 2**32 - 1"
        check(self.seed + self.num_seeds <= 2**32, "seed", self.seed, rule)
        name = self.env.get("name")
        check(
            isinstance(name, str) and name != "",
            "env.name",
            name,
            "must be a name; choose a world with env=<name>",
        )
        rows = self.rows_per_update
        rule = f"must be at least the {rows} rows of one update (num_envs x rollout_length); raise it or lower num_envs"
        check(self.eval.every >= rows, "eval.every", self.eval.every, rule)
        self._check_curriculum()

    def _check_curriculum(self) -> None:
        name, last, every = self.env["name"], self.stage_envs[-1], self.eval.every
        rule = f"the last stage must be the world of the run, which is {name} (env={last} would make it that)"
        check(last == name, "curriculum.stages", last, rule)
        if not _increase(self._stage_evaluations(self.num_evaluations)):
            enough = math.ceil(
                1 / min(stage.fraction for stage in self.curriculum.stages)
            )
            few = f"gives {self.num_evaluations} evaluations, and each of {len(self.stage_envs)} stages ends with one"
            most, rows = self.total_timesteps // enough, self.rows_per_update
            fix = (
                f"make it at most {most}"
                if most >= rows
                else f"total_timesteps must be at least {enough * rows}"
            )
            check(False, "eval.every", every, f"{few}; {fix}")

    @property
    def stage_envs(self) -> tuple[str, ...]:
        """Names of the worlds that the run learns in, stage by stage; evaluations are on the last."""
        return tuple(stage.env for stage in self.curriculum.stages) or (
            self.env["name"],
        )

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """For each stage the updates of the run by its end, which is that of an evaluation interval."""
        return tuple(
            n * self.updates_per_evaluation
            for n in self._stage_evaluations(self.num_evaluations)
        )

    def _stage_evaluations(self, total: int) -> list[int]:
        shares = [stage.fraction for stage in self.curriculum.stages] or [1.0]
        return [
            math.floor(share * total + 0.5) for share in itertools.accumulate(shares)
        ]

    def stage_at(self, update: int) -> int:
        """The stage, counted from 0, that learns after that many updates; the last one does not end."""
        return min(
            bisect.bisect_right(self.stage_ends, update), len(self.stage_envs) - 1
        )

    def with_env(self, name: str) -> RunConfig:
        """This run in another world alone, with the options of its own."""
        return dataclasses.replace(
            self, env={**self.env, "name": name}, curriculum=CurriculumConfig()
        )

    @property
    def rows_per_update(self) -> int:
        """Environment rows that one update learns from."""
        return self.num_envs * self.rollout_length

    @property
    def num_evaluations(self) -> int:
        """Evaluations after the one of the untrained parameters."""
        return max(1, round(self.total_timesteps / self.eval.every))

    @property
    def updates_per_evaluation(self) -> int:
        """Updates from one evaluation to the next."""
        return max(
            1,
            math.ceil(
                self.total_timesteps / (self.num_evaluations * self.rows_per_update)
            ),
        )

    @property
    def updates_per_chunk(self) -> int:
        """The largest divisor of the evaluation interval within ``arch.updates_per_chunk``."""
        n = self.updates_per_evaluation
        return max(
            k for k in range(1, min(n, self.arch.updates_per_chunk) + 1) if n % k == 0
        )

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: ``total_timesteps`` rounded up to whole evaluation intervals."""
        return self.num_evaluations * self.updates_per_evaluation
