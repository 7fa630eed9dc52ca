"""ST-HyperNet: a monotone network whose weights attention over entities makes (SPECTra, arXiv:2503.11726)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from jmarl.config import check, check_range


@dataclasses.dataclass(frozen=True)
class STHyperNetConfig:
    """Sizes and form; the parameters depend on the widths of the state's rows, and on no number of entities."""

    size_free: ClassVar[bool] = True

    name: Literal["st_hypernet"]
    mask_dead: bool
    embed: int
    """Width of an entity's embedding."""
    heads: int
    form: Literal["residual", "relu"]
    """The two layers after the attention: added to their input, or followed by a relu."""
    norm: Literal["none", "mean"]
    """``mean``: the weights are divided by the number of agents that count."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("mixer.heads", self.heads, 1)
        check_range("mixer.embed", self.embed, 1)
        rule = f"must be a multiple of mixer.heads={self.heads}"
        check(self.embed % self.heads == 0, "mixer.embed", self.embed, rule)
