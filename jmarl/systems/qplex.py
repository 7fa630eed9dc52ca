"""QPLEX: duplex dueling with a mixer that weights advantages (Wang et al. 2021, arXiv:2008.01062).

    Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i,    A_i <= 0
    L = 1/2 (Q_tot - G)^2

The weights of the advantages are not bounded. Published runs collapse late on several maps.

Differs from the paper: double Q and TD(lambda) (see ``systems/kits/q_learning.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("qplex")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_replay as make
from jmarl.systems.kits.q_learning_config import ReplayConfig as Config


__all__ = ["Config", "Network", "make"]
