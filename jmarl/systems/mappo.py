"""MAPPO: PPO with a central critic (Yu et al. 2022, arXiv:2103.01955).

    L = sum_i [ - min(rho_i A_i, clip(rho_i, 1 - eps, 1 + eps) A_i) - c_H H_i + c_V l(V(s, i), G_i) ]

Actors see their own observations; one critic, used in training alone, reads the central state:
alone (``critic_input: state``, run once for the team), with the agent's one-hot, or with the agent's
own observation (the paper's agent-specific global state). Differs from the paper: memory (``none``,
``gru``, ``ssm``) is learnt over the whole rollout instead of chunks of 10 steps; values of the dead keep
learning unless ``mask_dead_values``; time limits bootstrap (see ``systems/kits/ppo.py``).
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("mappo")

import dataclasses
from typing import Literal

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import AgentNet, Critic, Policy
from jmarl.networks.actor_critic import NetworkConfig as Network
from jmarl.system import System
from jmarl.systems.kits.ppo import PPOConfig, actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(PPOConfig):
    """PPO, and what the central critic reads."""

    critic_input: Literal["state", "state_and_id", "state_and_obs"]


def make(spec: Spec, config: RunConfig) -> System:
    """MAPPO for a world."""
    policy = Policy(AgentNet(spec, config.network), spec.discrete)
    critic = Critic(spec, config.network, reads=config.system.critic_input)
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
