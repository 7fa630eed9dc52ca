"""QPLEX: the team's value as a value and weighted advantages (Wang et al. 2021, arXiv:2008.01062)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from jmarl.config import check_range


@dataclasses.dataclass(frozen=True)
class QPLEXConfig:
    """Sizes; the parameters depend on the numbers of agents and actions and the size of the state."""

    size_free: ClassVar[bool] = False

    name: Literal["qplex"]
    mask_dead: bool
    kernels: int
    """Terms of the importance weight of an advantage."""
    hypernet: int
    """Hidden units of every network."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("mixer.kernels", self.kernels, 1)
        check_range("mixer.hypernet", self.hypernet, 1)
