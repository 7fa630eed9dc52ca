"""Configuration of the Q-learning kit; defaults and explanations are in ``configs/system``."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jmarl.config import check, check_positive, check_range
from jmarl.learning.minibatch import MinibatchConfig
from jmarl.learning.optimizers import LearningConfig
from jmarl.networks.mixers import MixerConfig


@dataclasses.dataclass(frozen=True)
class ValueConfig(LearningConfig):
    """Configuration of all value systems."""

    td_lambda: float
    explore_start: float
    explore_end: float
    explore_steps: int
    mixer: MixerConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("td_lambda", "explore_start", "explore_end"):
            check_range(f"system.{key}", getattr(self, key), 0, 1)
        check_range("system.explore_steps", self.explore_steps, 1)

    @property
    def mixer_config(self) -> MixerConfig:
        """Configuration of the value-decomposition mixer."""
        return self.mixer


@dataclasses.dataclass(frozen=True)
class ReplayConfig(ValueConfig):
    """Configuration of Q-learning with a replay buffer and a target network."""

    returns: Literal["td_lambda", "q_lambda"]
    replay_size: int
    replay_dtype: Literal["float32", "bfloat16"]
    warmup: int
    batch_size: int
    burn_in: int
    stored_carry: bool
    rows_per_gradient_step: int
    gradient_steps: int
    target_every: int
    target_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in (
            "replay_size",
            "batch_size",
            "rows_per_gradient_step",
            "gradient_steps",
            "target_every",
        ):
            check_range(f"system.{key}", getattr(self, key), 1)
        for key in ("warmup", "burn_in"):
            check_range(f"system.{key}", getattr(self, key), 0)
        rule = f"must be at most system.replay_size={self.replay_size}"
        check(self.warmup <= self.replay_size, "system.warmup", self.warmup, rule)
        check_positive("system.target_rate", self.target_rate)
        check_range("system.target_rate", self.target_rate, 0, 1)

    @property
    def replay_batch(self) -> int:
        """Sequences of a batch from the replay buffer."""
        return self.batch_size

    @property
    def replay_rows(self) -> int:
        """Rows that the replay buffer can hold."""
        return self.replay_size

    @property
    def warmup_rows(self) -> int:
        """Rows in the replay buffer before the first gradient step."""
        return self.warmup

    @property
    def steps_per_update(self) -> int:
        """Gradient steps of one update."""
        return self.gradient_steps

    @property
    def rows_per_step(self) -> float:
        """Requested rows of experience per gradient step."""
        return self.rows_per_gradient_step

    @property
    def steps_per_target_update(self) -> int:
        """Gradient steps between updates of the target network."""
        return self.target_every


@dataclasses.dataclass(frozen=True)
class PQNConfig(ValueConfig, MinibatchConfig):
    """Configuration of Q-learning from each rollout, without a replay buffer."""
