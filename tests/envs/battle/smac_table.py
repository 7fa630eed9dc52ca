"""Figures of SMAC's maps that its formulas give, and of the maps that are ours."""

from __future__ import annotations

from typing import NamedTuple


class Figures(NamedTuple):
    """Figures of a map in SMAC."""

    limit: int
    n_actions: int
    obs_width: int
    state_width: int
    max_reward: int
    """Before the scaling to 20."""


MAPS = {
    "3m": Figures(60, 9, 30, 48, 365),
    "8m": Figures(120, 14, 80, 168, 640),
    "25m": Figures(150, 31, 250, 950, 1575),
    "5m_vs_6m": Figures(70, 12, 55, 98, 530),
    "8m_vs_9m": Figures(120, 15, 85, 179, 695),
    "10m_vs_11m": Figures(150, 17, 105, 243, 805),
    "27m_vs_30m": Figures(180, 36, 285, 1170, 1850),
    "MMM": Figures(150, 16, 160, 290, 1015),
    "MMM2": Figures(180, 18, 176, 322, 1205),
    "2s3z": Figures(120, 11, 80, 120, 1020),
    "3s5z": Figures(150, 14, 128, 216, 1510),
    "3s5z_vs_3s6z": Figures(170, 15, 136, 230, 1670),
    "1c3s5z": Figures(180, 15, 162, 270, 1870),
    "3s_vs_3z": Figures(150, 9, 36, 54, 680),
    "3s_vs_4z": Figures(200, 10, 42, 61, 840),
    "3s_vs_5z": Figures(250, 11, 48, 68, 1000),
    "2m_vs_1z": Figures(150, 7, 16, 26, 360),
    "6h_vs_8z": Figures(150, 14, 78, 140, 1480),
    "2s_vs_1sc": Figures(300, 7, 17, 27, 510),
    "corridor": Figures(400, 30, 156, 282, 1280),
    "so_many_baneling": Figures(100, 38, 202, 397, 1480),
    "bane_vs_bane": Figures(200, 30, 336, 984, 1260),
    "2c_vs_64zg": Figures(400, 70, 332, 342, 3080),
}
# Limit, number of actions of SMAC's layout, and maximal reward.
OURS = {
    "6m2m_15m": (150, 21, 1025),
    "8m3m_21m": (180, 27, 1355),
    "8m4m_23m": (180, 29, 1465),
    "12m4m_30m": (200, 36, 1850),
}
