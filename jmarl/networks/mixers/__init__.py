"""Mixers: from the agents' values to the team's, ``mixer(q[T, B, N, A], action[T, B, N], obs) -> q_tot[T, B]``.

Each keeps individual-global-max: the agents' own best actions together are the team's. The sum and ST-HyperNet fit
teams, and opponents, of any number; QMIX and QPLEX cannot be transferred, because they have a weight for each agent
and for each number of the flat state. ``mask_dead`` leaves out the dead, whose
only action does nothing: theirs is the value of a decision that is none. The systems have it on with the sum and
ST-HyperNet, and off with QMIX and QPLEX, as these were published. An agent that is absent never counts.
"""

from __future__ import annotations

import flax.linen as nn

from jmarl.networks.mixers.common import Mixer, chosen, counted
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
    "chosen",
    "counted",
    "make_mixer",
]

MixerConfig = SumConfig | QMIXConfig | QPLEXConfig | STHyperNetConfig


def make_mixer(spec: Spec, config: MixerConfig) -> nn.Module:
    """The mixer of that name for a world: a Flax module with the call of ``Mixer``, whose parameters may be none."""
    match config:
        case SumConfig():
            return Sum(config)
        case QMIXConfig():
            return QMIX(config)
        case QPLEXConfig():
            return QPLEX(config)
        case STHyperNetConfig():
            return STHyperNet(spec, config)
