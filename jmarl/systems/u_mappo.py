"""U-MAPPO: MAPPO with unified actions and the cross-group inverse loss (arXiv:2408.07395).

    L = L_MAPPO + lambda_I L_CGI
    L_CGI = mean_{i, k} || softmax(z_i,k) - mean_{j in k} pi_j ||^2

Heterogeneous units share one network. Each action has one meaning in the unified action space, and
the actions of other units are masked. From its memory, each agent i predicts the mean policy of
every other action group k (see ``systems/kits/cgi.py``). The rest is ``systems/mappo.py``.

Baselines: ``network.share`` selects separate output layers or networks for each action group, and
``env.layout=clash`` the usual layout, in which one action has several meanings.

Differs from the paper: see ``systems/kits/cgi.py``.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("u_mappo")

import dataclasses

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import Policy
from jmarl.networks.agents import AgentConfig as Network
from jmarl.networks.entity_critic import make_critic
from jmarl.system import System
from jmarl.systems import mappo
from jmarl.systems.kits.cgi import CGIConfig, make_agent_with_cgi, policy_term
from jmarl.systems.kits.ppo import actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(mappo.Config):
    """Configuration of MAPPO, and of the CGI loss."""

    cgi: CGIConfig


def make(spec: Spec, config: RunConfig) -> System:
    """Build U-MAPPO for an environment."""
    cfg, updates = config.system, config.num_updates
    net, added = make_agent_with_cgi(spec, config, policy_term)
    policy = Policy(net, spec.discrete)
    critic = make_critic(spec, config.network, cfg.critic_input)
    return actor_critic_system(policy, critic, spec, cfg, updates, added)
