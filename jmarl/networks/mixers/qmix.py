"""QMIX: a monotone network whose weights a function of the state makes (Rashid et al. 2018, arXiv:1803.11485)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from jmarl.config import check_range


@dataclasses.dataclass(frozen=True)
class QMIXConfig:
    """Sizes; the parameters depend on the number of agents and the size of the state."""

    size_free: ClassVar[bool] = False

    name: Literal["qmix"]
    mask_dead: bool
    embed: int
    """Hidden units of the mixing network."""
    hypernet: int
    """Hidden units of the networks that make its weights."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("mixer.embed", self.embed, 1)
        check_range("mixer.hypernet", self.hypernet, 1)
