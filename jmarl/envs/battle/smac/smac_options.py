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
            action j of a healer heals ally j, and action j of other units attacks enemy j.
        heal_actions: add heal actions even if no unit can heal, so that parameters fit battles
            with healers.
        show_types: false: agents observe no unit types, neither their own nor those of others. The
            features are 0 then. The central state keeps them.
        own_position: add an agent's position to its features, as SMACv2 always does.
        cone: limit the view to a sector of 30 degrees, which 12 more own actions turn.
        prob_obs_enemy: probability that an ally can see an enemy that another ally has sighted
            first. It is drawn once for each pair.
        action_mask: make only visible targets near the agent available; false: all living targets.
        smac_reward: use SMAC's reward, which also pays for healing and recovery of enemies.
        pad: team sizes (allies, enemies) up to which absent units are added; 0 adds none.
        shuffle_slots: permute the units of each team in every episode.
        enemy_scale: factor on the damage of the enemies, besides that of the battle.
        opponent: tactics of the enemies. ``orders`` follows the order of each group.
            ``healer_first`` does the same, but prefers healers as targets. ``heuristic`` attacks
            only within the unit's range, as enemies of ``smax_`` do.
    """

    reset_pool: int = 0
    layout: Literal["unified", "clash"] = "unified"
    heal_actions: bool = False
    show_types: bool = True
    own_position: bool = False
    cone: bool = False
    prob_obs_enemy: float = 1.0
    action_mask: bool = True
    smac_reward: bool = False
    pad: tuple[int, int] = (0, 0)
    shuffle_slots: bool = False
    enemy_scale: float = 1.0
    opponent: Literal["orders", "healer_first", "heuristic"] = "orders"

    def __post_init__(self) -> None:
        check_range("env.reset_pool", self.reset_pool, 0, MAX_SIZE)
        check_range("env.enemy_scale", self.enemy_scale, 0.01, 100.0)
        check_range("env.prob_obs_enemy", self.prob_obs_enemy, 0.0, 1.0)
        for team, size in enumerate(self.pad):
            check_range(f"env.pad[{team}]", size, 0, MAX_TEAM_SIZE)
