"""Agents behind one interface: ``net(carry, obs, first[T, B]) -> (carry, out[T, B, N, A])``, with ``initial(B)``.

The output is Q-values or logits. ``flat`` reads an observation as one vector; the others read entities, take any
groups and any ``Spec.action_target``, and are blind to the order of a group and to absent entities.
"""

from __future__ import annotations

from jmarl.networks.actor_critic import AgentNet, NetworkConfig
from jmarl.networks.agents.hpn import HPN, HPNConfig
from jmarl.networks.agents.saqa import SAQA, SAQAConfig
from jmarl.networks.agents.updet import UPDeT, UPDeTConfig
from jmarl.types import Spec


__all__ = [
    "HPN",
    "SAQA",
    "Agent",
    "AgentConfig",
    "HPNConfig",
    "SAQAConfig",
    "UPDeT",
    "UPDeTConfig",
    "make_agent",
]

Agent = AgentNet | HPN | UPDeT | SAQA
AgentConfig = NetworkConfig | HPNConfig | UPDeTConfig | SAQAConfig
"""What a system takes as its ``Network`` where any agent will do; chosen by ``network.name``."""


def make_agent(spec: Spec, config: AgentConfig, out_scale: float = 0.01) -> Agent:
    """The agent network of that configuration; ``out_scale`` is the size of its outputs at the start."""
    kinds = {
        NetworkConfig: AgentNet,
        HPNConfig: HPN,
        UPDeTConfig: UPDeT,
        SAQAConfig: SAQA,
    }
    return kinds[type(config)](spec, config, out_scale)
