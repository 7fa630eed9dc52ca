"""IPPO: independent PPO with shared parameters (de Witt et al. 2020, arXiv:2011.09533).

    L = sum_i [ - min(rho_i A_i, clip(rho_i, 1-eps, 1+eps) A_i) - c_H H_i + c_V l(V(o_i), G_i) ]

All agents share one actor and one critic. Both networks read only the agent's own observation.

Differs from the paper:

* Memory is configurable (``none``, ``gru``, ``ssm``).
* Values are normalized.
* Dead agents are masked.
* Time limits bootstrap (see ``systems/kits/ppo.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("ippo")

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import AgentNet, Critic, Policy
from jmarl.networks.actor_critic import NetworkConfig as Network
from jmarl.system import System
from jmarl.systems.kits.ppo import PPOConfig as Config
from jmarl.systems.kits.ppo import actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


def make(spec: Spec, config: RunConfig) -> System:
    """Build IPPO for an environment."""
    policy = Policy(AgentNet(spec, config.network), spec.discrete)
    critic = Critic(spec, config.network, reads="obs")
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
