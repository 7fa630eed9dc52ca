"""Value-decomposition mixers: ``mixer(q[T, B, N, A], action[T, B, N], obs) -> q_tot[T, B]``.

Agents, targets and losses may not appear here.
"""

from __future__ import annotations

import flax.linen as nn

from jmarl.networks.mixers.common import Mixer, agent_mask, q_of_actions
from jmarl.networks.mixers.qmix_mixer import QMIX, QMIXConfig
from jmarl.networks.mixers.qplex_mixer import QPLEX, QPLEXConfig
from jmarl.networks.mixers.st_hypernet import STHyperNet, STHyperNetConfig
from jmarl.networks.mixers.sum import Sum, SumConfig
from jmarl.types import Spec


__all__ = [
    "Mixer",
    "MixerConfig",
    "QMIXConfig",
    "QPLEXConfig",
    "STHyperNetConfig",
    "SumConfig",
    "agent_mask",
    "make_mixer",
    "q_of_actions",
]

MixerConfig = SumConfig | QMIXConfig | QPLEXConfig | STHyperNetConfig
"""Mixer configuration of a system; ``system.mixer.name`` selects the mixer."""


def make_mixer(spec: Spec, config: MixerConfig) -> nn.Module:
    """Build the mixer of a configuration.

    Every mixer satisfies individual-global-max: the agents' greedy actions form the team's greedy
    joint action. Sum and ST-HyperNet fit teams and opponents of any number. QMIX and QPLEX do not
    transfer, because they have weights per agent and per number of the flat state.

    ``mask_dead`` omits dead agents, whose only action does nothing. The systems set it for all
    mixers except QPLEX. The published QMIX mixes dead agents too; on ``smax_3m`` this made no
    significant difference. Absent agents are always omitted.

    Args:
        spec: Specification of the environment.
        config: Sizes of the mixer; its type selects the mixer.

    Returns:
        A Flax module with the call of ``Mixer``. It may have no parameters.
    """
    match config:
        case SumConfig():
            return Sum(config)
        case QMIXConfig():
            return QMIX(config)
        case QPLEXConfig():
            return QPLEX(config)
        case STHyperNetConfig():
            return STHyperNet(spec, config)
