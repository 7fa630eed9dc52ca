"""PQN with a sum of values: Q-learning without replay or target network (Gallici et al. 2024, arXiv:2407.04811).

    L = 1/2 (sum_i Q(o_i, u_i) - G)^2,    G_t = r_t + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}),

with ``V = sum_i max_u Q(o_i, u)`` over the actions available.

LayerNorm takes the place of the target network, so ``network.layer_norm`` stays on. Returns are those of the parameters
of each gradient step. Differs from the paper: Adam for RAdam; time limits bootstrap and cut the trace (see
``systems/kits/q_learning.py``); no steps of the last rollout are learnt again.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("pqn_vdn")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_pqn as make
from jmarl.systems.kits.q_learning_config import PQNConfig as Config


__all__ = ["Config", "Network", "make"]
