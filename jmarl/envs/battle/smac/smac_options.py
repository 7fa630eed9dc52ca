"""Options of battles under the rules of SMAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jmarl.config import check_range
from jmarl.config.errors import MAX_SIZE
from jmarl.envs.battle.scenario import MAX_TEAM_SIZE


@dataclass(frozen=True)
class SmacConfig:
    """Options of a battle.

    Attributes:
        reset_pool: number of episode starts drawn ahead for each environment, as for ``smax_``.
        layout: ``unified`` has an action for each enemy and for each ally. ``clash`` is SMAC's:
            action j attacks enemy j for units with a weapon, and heals ally j for healers.
        heal_actions: have actions that heal even if no unit can, so that parameters fit battles
            with healers.
        own_position: include the own position in an agent's features, as SMACv2 always does.
        cone: limit the view to a sector of 30 degrees, which 12 further own actions turn.
        prob_obs_enemy: probability that an ally can see an enemy which another ally has sighted
            first. It is drawn once for each pair.
        action_mask: offer only targets in reach. Otherwise every living target is offered.
        smac_reward: SMAC's reward, which also pays for the recovery of enemies.
        pad: sizes (allies, enemies) to which absent units fill the teams; 0 fills none.
        shuffle_slots: permute the units of each team in every episode.
        opponent: tactics of the enemies. ``orders`` follows the order of each group.
            ``healer_first`` does too, and prefers healers as targets. ``heuristic`` attacks only
            within the own reach, as enemies of ``smax_`` do.
    """

    reset_pool: int = 0
    layout: Literal["unified", "clash"] = "unified"
    heal_actions: bool = False
    own_position: bool = False
    cone: bool = False
    prob_obs_enemy: float = 1.0
    action_mask: bool = True
    smac_reward: bool = False
    pad: tuple[int, int] = (0, 0)
    shuffle_slots: bool = False
    opponent: Literal["orders", "healer_first", "heuristic"] = "orders"

    def __post_init__(self) -> None:
        check_range("env.reset_pool", self.reset_pool, 0, MAX_SIZE)
        check_range("env.prob_obs_enemy", self.prob_obs_enemy, 0.0, 1.0)
        for team, size in enumerate(self.pad):
            check_range(f"env.pad[{team}]", size, 0, MAX_TEAM_SIZE)
