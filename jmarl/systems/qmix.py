"""QMIX: values of agents mixed by a monotone network of the state (Rashid et al. 2018, arXiv:1803.11485).

    L = 1/2 (Q_tot(q_1, .., q_N; s) - G)^2,    dQ_tot / dq_i >= 0

G is the TD(lambda) return of the target networks at the actions that the online agents choose. Differs from the paper:
double Q and TD(lambda), as in the tuned form of Hu et al. 2021 (arXiv:2102.03479); sequences of the replay are whole
rollouts (see ``systems/kits/q_learning.py``).
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("qmix")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_replay as make
from jmarl.systems.kits.q_learning_config import ReplayConfig as Config


__all__ = ["Config", "Network", "make"]
