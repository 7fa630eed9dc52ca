"""Options of warehouses and foraging. This module does not import JAX."""

from __future__ import annotations

from dataclasses import dataclass

from jmarl.config import check_range


@dataclass(frozen=True)
class WarehouseConfig:
    """Options of a warehouse.

    Attributes:
        episode_limit: Number of actions in an episode.
        individual_rewards: Give each robot its own reward instead of the team's sum.
    """

    episode_limit: int = 500
    individual_rewards: bool = True

    def __post_init__(self) -> None:
        check_range("env.episode_limit", self.episode_limit, 1)


@dataclass(frozen=True)
class ForagingConfig:
    """Options of a foraging task.

    Attributes:
        episode_limit: Largest number of actions in an episode.
        individual_rewards: Give each player its own reward instead of the team's sum.
        mask: Offer only the actions that have an effect. By default all are available, and the
            others do nothing.
    """

    episode_limit: int = 50
    individual_rewards: bool = True
    mask: bool = False

    def __post_init__(self) -> None:
        check_range("env.episode_limit", self.episode_limit, 1)
