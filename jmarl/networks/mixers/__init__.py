"""Mixers: from the agents' values to the team's, ``mixer(q[T, B, N, A], action[T, B, N], obs) -> q_tot[T, B]``.

Each keeps individual-global-max: the agents' own best actions together are the team's. ``config.size_free`` tells
whether the parameters fit a team, and opponents, of any size; those of the others cannot be transferred, because
they have a weight for each agent and for each number of the flat state.
"""

from __future__ import annotations

from jmarl.networks.mixers.common import Mixer, chosen, counted
from jmarl.networks.mixers.qmix import QMIXConfig
from jmarl.networks.mixers.qplex import QPLEXConfig
from jmarl.networks.mixers.st_hypernet import STHyperNetConfig
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


def make_mixer(spec: Spec, config: MixerConfig) -> Sum:
    """The mixer of that name for a world; a Flax module, whose parameters may be none."""
    if isinstance(config, SumConfig):
        return Sum(config)
    raise NotImplementedError(config.name)
