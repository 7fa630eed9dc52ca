"""HPN-MAPPO: PPO with hypernetworks over entities (Hao et al. 2022, arXiv:2203.05285).

    logits_i = HPN(own, {ally_k}, {enemy_j}, h_i)
    V = w relu(global W + sum_j x_j W_in(x_j)) + b, with memory

The actor is ``networks/agents/hpn.py`` with its outputs as logits. Unavailable actions are masked.
The critic (``networks/entity_critic.py``) is used only in training. It applies the input layer of
the same network to the entities of the central state. It has the sizes of the actor.

Actor and critic do not depend on the order of entities, and fit teams of any size. The actor reads
a one-hot of the agent only if ``network.agent_id`` is true. The loss is that of
``systems/kits/ppo.py``.

Differs from the paper: its code for MAPPO is not public, so the form of the critic is an
interpretation.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("hpn_mappo")

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import Policy
from jmarl.networks.agents.hpn import HPN
from jmarl.networks.agents.hpn import HPNConfig as Network
from jmarl.networks.entity_critic import EntityCritic
from jmarl.system import System
from jmarl.systems.kits.ppo import PPOConfig as Config
from jmarl.systems.kits.ppo import actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


def make(spec: Spec, config: RunConfig) -> System:
    """Build HPN-MAPPO for an environment."""
    policy = Policy(HPN(spec, config.network), spec.discrete)
    critic = EntityCritic(spec, config.network)
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
