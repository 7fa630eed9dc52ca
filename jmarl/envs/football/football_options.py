"""Options of a football environment. This module does not import JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jmarl.config import check_range


@dataclass(frozen=True)
class FootballConfig:
    """Options of a football environment, named after Google Research Football (GRF).

    Attributes:
        obs: Observations: ``entity`` for entity groups, or the flat vectors of GRF's
            ``simple115``, of ``spectra`` or of ``cds``.
        reward: ``scoring``: 1 for a goal and -1 for a conceded one. ``checkpoints``: GRF's
            shaping for the owner who comes near the goal. ``spectra``: SPECTra's reward.
        mask: Available actions: ``default``, SPECTra's tactical ``spectra``, or ``none``.
        passes: ``grf``: the direction selects the receiver. ``aimed``: one action for each kind
            of pass and teammate.
        opponent: Difficulty of the right team from 0 to 1; by default that of the scenario.
        episode_limit: Largest number of steps; by default that of the scenario.
        start_noise: Largest displacement of a player at the start, in meters.
        view_radius: Distance up to which agents observe others, in meters; 0 for no limit.
        substeps: Physics updates per step of 0.1 s.
    """

    obs: Literal["entity", "simple115", "spectra", "cds"] = "entity"
    reward: Literal["scoring", "checkpoints", "spectra"] = "scoring"
    mask: Literal["default", "spectra", "none"] = "default"
    passes: Literal["grf", "aimed"] = "grf"
    opponent: float | None = None
    episode_limit: int | None = None
    start_noise: float = 0.0
    view_radius: float = 0.0
    substeps: int = 5

    def __post_init__(self) -> None:
        if self.opponent is not None:
            check_range("env.opponent", self.opponent, 0.0, 1.0)
        if self.episode_limit is not None:
            check_range("env.episode_limit", self.episode_limit, 1)
        check_range("env.start_noise", self.start_noise, 0.0, 5.0)
        check_range("env.view_radius", self.view_radius, 0.0)
        check_range("env.substeps", self.substeps, 2, 20)
