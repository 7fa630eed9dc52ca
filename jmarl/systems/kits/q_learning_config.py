"""Settings of the value kit (``systems/kits/q_learning.py``); defaults are in ``configs/system``."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jmarl.config import check_positive, check_range
from jmarl.networks.mixers import MixerConfig


@dataclasses.dataclass(frozen=True)
class ValueConfig:
    """What all value systems share."""

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
        """Check every value; a broken rule raises ``ConfigError``."""
        for key in ("gamma", "td_lambda", "explore_start", "explore_end"):
            check_range(f"system.{key}", getattr(self, key), 0, 1)
        for key in ("lr", "max_grad_norm"):
            check_positive(f"system.{key}", getattr(self, key))
        check_range("system.explore_steps", self.explore_steps, 1)


@dataclasses.dataclass(frozen=True)
class ReplayConfig(ValueConfig):
    """Learning from a replay, with a target network."""

    returns: Literal["td_lambda", "q_lambda"]
    replay_size: int
    replay_dtype: Literal["float32", "bfloat16"]
    batch_size: int
    gradient_steps: int
    target_every: int
    target_rate: float

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        super().__post_init__()
        for key in ("replay_size", "batch_size", "gradient_steps", "target_every"):
            check_range(f"system.{key}", getattr(self, key), 1)
        check_positive("system.target_rate", self.target_rate)
        check_range("system.target_rate", self.target_rate, 0, 1)


@dataclasses.dataclass(frozen=True)
class PQNConfig(ValueConfig):
    """Learning from each rollout alone."""

    epochs: int
    minibatches: int

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        super().__post_init__()
        for key in ("epochs", "minibatches"):
            check_range(f"system.{key}", getattr(self, key), 1)
