"""MAPPO: PPO with a central critic (Yu et al. 2022, arXiv:2103.01955).

    L = sum_i [ - min(rho_i A_i, clip(rho_i, 1-eps, 1+eps) A_i) - c_H H_i + c_V l(V(s, i), G_i) ]

Actors read their own observations. ``network.name`` selects their network. All agents share one
critic, which is used only in training. ``critic_input`` selects its input:

* ``obs``: the agent's own observation. This is IPPO.
* ``state``: the central state; the critic runs once for the team.
* ``state_and_id``: the central state and the agent's one-hot.
* ``state_and_obs``: the central state and the agent's own observation (the paper's agent-specific
  global state).
* ``entities``: the entities of the central state, for teams of any size.

Differs from the paper:

* Memory (``none``, ``gru``, ``ssm``) is trained over the whole rollout instead of chunks of 10
  steps.
* Values of dead agents continue to learn unless ``mask_dead_values`` is set.
* Time limits bootstrap (see ``systems/kits/ppo.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("mappo")

import dataclasses

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import Policy
from jmarl.networks.agents import AgentConfig as Network
from jmarl.networks.agents import make_agent
from jmarl.networks.entity_critic import CriticInput, make_critic
from jmarl.system import System
from jmarl.systems.kits.ppo import PPOConfig, actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(PPOConfig):
    """Configuration of the PPO kit, and the input of the critic."""

    critic_input: CriticInput


def make(spec: Spec, config: RunConfig) -> System:
    """Build MAPPO for an environment."""
    policy = Policy(make_agent(spec, config.network), spec.discrete)
    critic = make_critic(spec, config.network, config.system.critic_input)
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
