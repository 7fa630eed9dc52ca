"""PQN with a sum of values: Q-learning without replay (Gallici et al. 2024, arXiv:2407.04811).

    L = 1/2 (sum_i Q(o_i, u_i) - G)^2
    G_t = r_t + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}),    V = sum_i max_u Q(o_i, u)

The maximum runs over available actions. LayerNorm replaces the target network, so
``network.layer_norm`` must be true. Returns are computed from the parameters of each gradient step.

Differs from the paper:

* Adam instead of RAdam.
* Time limits bootstrap and cut the trace (see ``systems/kits/q_learning.py``).
* Rows of the previous rollout are not reused.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("pqn_vdn")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_pqn as make
from jmarl.systems.kits.q_learning_config import PQNConfig as Config


__all__ = ["Config", "Network", "make"]
