"""Agents with one interface.

    net(carry, obs, first[T, B], between=None) -> (carry, out[T, B, N, A], features[T, B, N, H])

The features are those after the memory. ``between`` (see ``networks/memory.py``) changes what the
action heads read; the features are returned as they were before it.

Mixers, critics and learning rules may not appear here.
"""

from __future__ import annotations

from jmarl.config import check
from jmarl.networks.actor_critic import AgentNet, NetworkConfig
from jmarl.networks.agents.hpn import HPN, HPNConfig
from jmarl.networks.agents.saqa import SAQA, SAQAConfig
from jmarl.networks.agents.updet import UPDeT, UPDeTConfig
from jmarl.networks.sharing import ByGroup
from jmarl.types import BY_CLASS, Spec


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
"""Network of all agents; ``initial(B)`` is its initial memory, and its output Q-values or logits.

The ``flat`` agent reads an observation as one vector. The others read entities. They accept any
groups and any ``Spec.action_target``, are invariant to the order of a group, and ignore absent
entities.
"""

AgentConfig = NetworkConfig | HPNConfig | UPDeTConfig | SAQAConfig
"""Network configuration of a system that accepts any agent; ``network.name`` selects the agent."""

AMBIGUOUS_TARGETS = (
    "reads entities, but the target of an action depends on the unit type in this environment; "
    "use network=mlp, gru or ssm, or remove env.layout=clash"
)


def make_agent(
    spec: Spec, config: AgentConfig, out_scale: float = 0.01
) -> Agent | ByGroup:
    """Build the agent network of a configuration.

    Args:
        spec: Specification of the environment.
        config: Sizes of the agent; its type selects the agent.
        out_scale: Scale of the initial outputs.

    Returns:
        A Flax module with the interface of this package. With parameters for each action group
        (``config.share``) it has no ``between``.

    Raises:
        ConfigError: If the agent reads entities, and the target of an action depends on the class
            of the unit.
    """
    reads_entities = not isinstance(config, NetworkConfig)
    fits = not (reads_entities and BY_CLASS in spec.action_target)
    check(fits, "network.name", config.name, AMBIGUOUS_TARGETS)
    kinds = {
        NetworkConfig: AgentNet,
        HPNConfig: HPN,
        UPDeTConfig: UPDeT,
        SAQAConfig: SAQA,
    }
    net = kinds[type(config)](spec, config, out_scale)
    return net if config.share == "all" else ByGroup(net, spec, config.share)
