"""Selective state space: one scan with several implementations, and the Mamba blocks on top of it."""

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
