"""Schema of the keys that all systems share: frozen, hashable dataclasses without JAX.

A system's own keys are in the ``Config`` of its module. Keys of all PPO systems are in
``systems.kits.ppo.PPOConfig``, and keys of Q-learning in ``systems.kits.q_learning_config``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal

from jmarl.config.errors import MAX_SIZE, check, check_range
from jmarl.config.schedule import Schedule


MAX_SEEDS = 2**16
"""Largest number of seeds of a run, as each has its own entries on the host."""
MAX_BLOCKS = 128
"""Largest number of blocks of a network, as each is traced on its own."""


def _strictly_increasing(counts: tuple[int, ...]) -> bool:
    return all(low < high for low, high in itertools.pairwise([0, *counts]))


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Configuration of evaluations. Each has greedy episodes and sampled episodes."""

    episodes: int
    """Episodes of each mode per evaluation, exactly one in each environment."""
    every: int
    """Rows between evaluations."""
    absolute_factor: int
    """Episodes of the absolute metric, as a multiple of ``episodes``; 0 disables it."""

    def __post_init__(self) -> None:
        check_range("eval.episodes", self.episodes, 1, MAX_SIZE)
        check_range("eval.every", self.every, 1)
        check_range("eval.absolute_factor", self.absolute_factor, 0, MAX_SIZE)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Configuration of checkpoints, written after evaluations and on SIGTERM or Ctrl-C."""

    enabled: bool
    every: int
    """Evaluations between checkpoints."""
    keep: int
    """Most recent checkpoints to keep, besides the best parameters."""
    verify: bool
    """True: check the digests of a checkpoint when it is restored."""
    exact: bool = True
    """True: save the whole ``Runner``. False: environments and replay buffer are reset."""
    required: bool = False
    """True: stop the run if a checkpoint cannot be written."""

    def __post_init__(self) -> None:
        check_range("checkpoint.every", self.every, 1)
        check_range("checkpoint.keep", self.keep, 1)


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """Configuration for the hardware."""

    name: Literal["auto", "cpu", "gpu", "tpu"]
    updates_per_chunk: int
    """Maximum number of updates in one compiled call; a call should take a few seconds."""
    compile_cache: str
    """Folder of the persistent compilation cache; empty disables it."""
    check_memory: bool = True
    """True: reject a run that needs more memory than the devices have."""
    compile_effort: float = 0.0
    """Effort of XLA for a TPU: -1 compiles fastest, and 0 is XLA's default."""

    def __post_init__(self) -> None:
        check_range("arch.updates_per_chunk", self.updates_per_chunk, 1)
        check_range("arch.compile_effort", self.compile_effort, -1, 1)


@dataclasses.dataclass(frozen=True)
class LoggerConfig:
    """Configuration of loggers. The progress line and ``metrics.jsonl`` are always written."""

    tensorboard: bool
    wandb: bool
    wandb_project: str
    wandb_mode: Literal["online", "offline", "disabled"]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """Configuration of a curriculum stage."""

    env: str
    """Name of the environment."""
    fraction: float
    """Share of the run's updates, in (0, 1]."""


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Configuration of a curriculum: environments in sequence, with the same parameters."""

    stages: tuple[StageConfig, ...] = ()
    """Stages in sequence; the last has the environment of the run. Empty: no curriculum."""
    reset_optimizer: bool = True
    """True: reset the optimizer's moments at the start of a stage. Schedules continue."""

    def __post_init__(self) -> None:
        shares = [stage.fraction for stage in self.stages]
        for i, share in enumerate(shares):
            key = f"curriculum.stages[{i}].fraction"
            check(0 < share <= 1, key, share, "must be greater than 0 and at most 1")
        sums_to_one = math.isclose(sum(shares), 1, abs_tol=1e-6)
        rule = f"fractions must add up to 1, not {sum(shares):g}"
        check(not shares or sums_to_one, "curriculum.stages", shares, rule)


@dataclasses.dataclass(frozen=True)
class SystemConfig:
    """Base class of every system's ``Config``, with properties that the training loop reads."""

    @property
    def num_minibatches(self) -> int | None:
        """Minibatches of an epoch, which must divide ``num_envs``; None if not a key."""
        return None

    @property
    def replay_batch(self) -> int:
        """Sequences of a batch from the replay buffer; 0 if there is none."""
        return 0

    @property
    def replay_rows(self) -> int:
        """Rows that the replay buffer can hold; 0 if there is none."""
        return 0

    @property
    def warmup_rows(self) -> int:
        """Rows of experience before the first gradient step."""
        return 0

    @property
    def steps_per_update(self) -> int:
        """Gradient steps of one update."""
        return 1

    @property
    def rows_per_step(self) -> float | None:
        """Requested rows of experience per gradient step; None if there is no such key."""
        return None

    @property
    def steps_per_target_update(self) -> int | None:
        """Gradient steps between updates of the target network; None if there is none."""
        return None

    @property
    def anneals_lr(self) -> bool:
        """True if the learning rate depends on the length of the run."""
        return False

    @property
    def rescales_values(self) -> bool:
        """True if the critic's parameters hold only with the statistics of the same update."""
        return False

    @property
    def separate_agents(self) -> bool:
        """True if each agent has its own parameters, so that they fit one team size only."""
        return False

    @property
    def learning_rate(self) -> float | None:
        """Value of the key ``lr``; None if the system has no such key."""
        return vars(self).get("lr")

    @property
    def mixer_config(self) -> Any:
        """Configuration of the value-decomposition mixer; None if there is none."""
        return None


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Configuration of a run.

    ``system`` and ``network`` have the classes ``Config`` and ``Network`` of the system's
    module. A row is one time step of one environment.
    """

    system_name: str
    """Module of ``jmarl.systems``."""
    seed: int
    """Random seed; the seeds of ``num_seeds`` runs are ``seed``, ``seed + 1``, ..."""
    num_seeds: int
    """Independent runs, trained together with ``jax.vmap``."""
    total_timesteps: int
    """Length of training, in rows."""
    num_envs: int
    """Parallel environments."""
    rollout_length: int
    """Time steps of a rollout."""
    run_dir: str
    """Run folder; empty: a new one below ``runs``."""
    resume: str
    """Run folder to resume; empty for none."""
    env: dict[str, Any]
    """``name`` of the environment, and its options."""
    system: Any
    """A ``SystemConfig``: the ``Config`` of the system's module."""
    network: Any
    arch: ArchConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    logger: LoggerConfig
    init_from: str = ""
    """Run folder for a warm start from its best parameters; empty for none."""
    curriculum: CurriculumConfig = CurriculumConfig()
    distributed: bool = False
    """True: the run has several processes, which ``jmarl.hosts`` has connected."""
    on_nonfinite: Literal["skip", "stop", "rollback"] = "skip"
    """Reaction to a reward, metric or parameter that is not finite."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the inputs of matrix products. All else is float32."""

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("total_timesteps", self.total_timesteps, 1)
        check_range("num_seeds", self.num_seeds, 1, MAX_SEEDS)
        for key in ("num_envs", "rollout_length"):
            check_range(key, getattr(self, key), 1, MAX_SIZE)
        rule = f"with num_seeds={self.num_seeds} the last seed exceeds 2**32 - 1"
        check(self.seed + self.num_seeds <= 2**32, "seed", self.seed, rule)
        name = self.env.get("name")
        is_name = isinstance(name, str) and name != ""
        check(is_name, "env.name", name, "must be a name; use env=<name>")
        rows = self.rows_per_update
        fix = "raise it, or lower rollout_rows or rollout_length"
        rule = f"must be at least the {rows} rows of one update (num_envs x rollout_length); {fix}"
        check(self.eval.every >= rows, "eval.every", self.eval.every, rule)
        rollback_works = self.on_nonfinite != "rollback" or self.checkpoint.enabled
        rule = "needs checkpoints; set checkpoint.enabled=true"
        check(rollback_works, "on_nonfinite", self.on_nonfinite, rule)
        self._check_curriculum()
        self._check_counters()

    def _check_counters(self) -> None:
        """Check numbers that JAX counts with 32 bits."""
        rows = self.rows_per_update
        rule = f"with num_envs={self.num_envs} an update has {rows} rows, more than {MAX_SIZE}"
        check(rows <= MAX_SIZE, "rollout_length", self.rollout_length, rule)
        steps = self.gradient_steps
        rule = f"gives {steps} gradient steps, more than {MAX_SIZE}; lower it"
        check(steps <= MAX_SIZE, "total_timesteps", self.total_timesteps, rule)

    def _check_curriculum(self) -> None:
        name, last = self.env["name"], self.stage_envs[-1]
        rule = (
            f"the last stage must be the environment of the run, {name}; use env={last}"
        )
        check(last == name, "curriculum.stages", last, rule)
        if _strictly_increasing(self.schedule.stage_ends):
            return
        shortest = min(self.schedule.stage_shares)
        needed = math.ceil(1 / shortest) * self.rows_per_update
        rule = (
            f"gives {self.num_updates} updates, too few for "
            f"{len(self.stage_envs)} stages; make it at least {needed}"
        )
        check(False, "total_timesteps", self.total_timesteps, rule)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the run."""
        return list(range(self.seed, self.seed + self.num_seeds))

    @property
    def stage_envs(self) -> tuple[str, ...]:
        """Environment of each stage. Evaluations use the environment of the last stage."""
        names = tuple(stage.env for stage in self.curriculum.stages)
        return names or (self.env["name"],)

    def with_env(self, name: str) -> RunConfig:
        """Return this configuration with another environment and without stages.

        The options of the environment are kept.
        """
        env = {**self.env, "name": name}
        curriculum = dataclasses.replace(self.curriculum, stages=())
        return dataclasses.replace(self, env=env, curriculum=curriculum)

    @property
    def rows_per_update(self) -> int:
        """Rows of one rollout."""
        return self.num_envs * self.rollout_length

    @property
    def schedule(self) -> Schedule:
        """Updates, evaluations and stages of the run."""
        shares = tuple(stage.fraction for stage in self.curriculum.stages)
        return Schedule(
            total_rows=self.total_timesteps,
            rows_per_update=self.rows_per_update,
            rows_per_evaluation=self.eval.every,
            updates_per_chunk=self.arch.updates_per_chunk,
            stage_shares=shares or (1.0,),
        )

    @property
    def num_updates(self) -> int:
        """Smallest number of updates with at least ``total_timesteps`` rows."""
        return self.schedule.num_updates

    @property
    def warmup_updates(self) -> int:
        """Updates at the start of each stage that only collect experience."""
        return max(0, -(-self.system.warmup_rows // self.rows_per_update) - 1)

    @property
    def learning_updates(self) -> int:
        """Updates with gradient steps."""
        ends = self.schedule.stage_ends
        lengths = (end - start for start, end in itertools.pairwise((0, *ends)))
        return sum(max(0, length - self.warmup_updates) for length in lengths)

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of the run."""
        return self.learning_updates * self.system.steps_per_update
