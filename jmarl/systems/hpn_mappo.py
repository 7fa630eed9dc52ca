"""HPN-MAPPO: PPO whose actor and critic read entities through hypernetworks (Hao et al. 2022, arXiv:2203.05285).

    logits_i = HPN(own, {ally_k}, {enemy_j}, h_i),    V = w relu(global W + sum_j x_j W_in(x_j)) + b, with memory

The actor is ``networks/agents/hpn.py`` with its outputs as logits, unavailable actions masked; the critic, used in
training alone, is the same network's input layer on the rows of the central state (``networks/entity_critic.py``), with
the sizes of the actor. Both are blind to the order of entities and fit teams of any size; nobody has a one-hot, unless
``network.agent_id`` gives the actors one. The loss is that of ``systems/kits/ppo.py``.

Differs from the paper: its code for MAPPO is not public, and the form of the critic is this project's reading.
"""

from __future__ import annotations


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
    """HPN-MAPPO for a world."""
    policy = Policy(HPN(spec, config.network), spec.discrete)
    critic = EntityCritic(spec, config.network)
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
