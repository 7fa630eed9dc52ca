"""Selective state spaces: one scan with several implementations, and the Mamba blocks around it.

Modules here must not depend on reinforcement learning: from jmarl they may import only
``jmarl.nn``.
"""

from jmarl.ssm.mamba import S6, BiMamba, CrossMamba, Mamba, MambaConfig, MambaState
from jmarl.ssm.scan import selective_scan, selective_step


__all__ = [
    "S6",
    "BiMamba",
    "CrossMamba",
    "Mamba",
    "MambaConfig",
    "MambaState",
    "selective_scan",
    "selective_step",
]
