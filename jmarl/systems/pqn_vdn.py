"""PQN with a sum of values: Q-learning without replay or target network (Gallici et al. 2024, arXiv:2407.04811).

    L = 1/2 (sum_i Q(o_i, u_i) - G)^2,    G_t = r_t + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}),

with ``V = sum_i max_u Q(o_i, u)`` over the actions available.

LayerNorm takes the place of the target network, so ``network.layer_norm`` stays on. Returns are those of the parameters
of each gradient step. Differs from the paper: Adam for RAdam; time limits bootstrap and cut the trace (see
``systems/value.py``); no steps of the last rollout are learnt again.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.training.launch import main

    main("pqn_vdn")

from jmarl.config import RunConfig
from jmarl.networks.agents import AgentConfig as Network
from jmarl.networks.agents import make_agent
from jmarl.networks.mixers import make_mixer
from jmarl.system import System
from jmarl.systems.value import PQNConfig as Config
from jmarl.systems.value import pqn_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


def make(spec: Spec, config: RunConfig) -> System:
    """PQN with a sum of values for a world."""
    return pqn_system(make_agent(spec, config.network), make_mixer(spec, config.system.mixer), spec, config)
