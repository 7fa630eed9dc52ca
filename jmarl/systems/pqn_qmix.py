"""PQN with the mixer of QMIX: Q-learning of a team without replay or target network.

    L = 1/2 (Q_tot(q_1, .., q_N; s) - G)^2,    V = Q_tot(max_u q_1, .., max_u q_N; s)

G is the lambda-return of V, as in ``systems/pqn_vdn.py``. The mixer is monotonic, so the greedy
value of the team is the mix of the agents' greedy values.

Gallici et al. 2024 (arXiv:2407.04811), with the mixer of Rashid et al. 2018 (arXiv:1803.11485).

Differs from the papers: neither combines PQN and this mixer.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("pqn_qmix")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_pqn as make
from jmarl.systems.kits.q_learning_config import PQNConfig as Config


__all__ = ["Config", "Network", "make"]
