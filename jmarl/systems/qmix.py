"""QMIX: the mixer is a monotonic network of the state (Rashid et al. 2018, arXiv:1803.11485).

    L = 1/2 (Q_tot(q_1, .., q_N; s) - G)^2,    dQ_tot / dq_i >= 0

G is the TD(lambda) return of the target networks, at the greedy actions of the online agents.

Differs from the paper:

* Double Q and TD(lambda), as in the tuned form of Hu et al. 2021 (arXiv:2102.03479).
* Sequences of the replay buffer are whole rollouts (see ``systems/kits/q_learning.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("qmix")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_replay as make
from jmarl.systems.kits.q_learning_config import ReplayConfig as Config


__all__ = ["Config", "Network", "make"]
