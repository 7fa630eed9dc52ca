"""Configuration of the Q-learning kit; defaults and explanations are in ``configs/system``."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jmarl.config import SystemConfig, check_positive, check_range
from jmarl.networks.mixers import MixerConfig


@dataclasses.dataclass(frozen=True)
class ValueConfig(SystemConfig):
    """Configuration of all value systems."""

    lr: float
    anneal_lr: bool
    max_grad_norm: float
    gamma: float
    td_lambda: float
    explore_start: float
    explore_end: float
    explore_steps: int
    mixer: MixerConfig

    def __post_init__(self) -> None:
        for key in ("gamma", "td_lambda", "explore_start", "explore_end"):
            check_range(f"system.{key}", getattr(self, key), 0, 1)
        for key in ("lr", "max_grad_norm"):
            check_positive(f"system.{key}", getattr(self, key))
        check_range("system.explore_steps", self.explore_steps, 1)

    @property
    def anneals_lr(self) -> bool:
        """True if the learning rate depends on the length of the run."""
        return self.anneal_lr

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
    batch_size: int
    gradient_steps: int
    target_every: int
    target_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("replay_size", "batch_size", "gradient_steps", "target_every"):
            check_range(f"system.{key}", getattr(self, key), 1)
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
    def steps_per_update(self) -> int:
        """Gradient steps of one update."""
        return self.gradient_steps


@dataclasses.dataclass(frozen=True)
class PQNConfig(ValueConfig):
    """Configuration of Q-learning from each rollout, without a replay buffer."""

    epochs: int
    minibatches: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("epochs", "minibatches"):
            check_range(f"system.{key}", getattr(self, key), 1)

    @property
    def num_minibatches(self) -> int:
        """Minibatches of an epoch."""
        return self.minibatches

    @property
    def steps_per_update(self) -> int:
        """Gradient steps of one update."""
        return self.epochs * self.minibatches
