"""QPLEX: duplex dueling, whose mixer weighs advantages of any kind (Wang et al. 2021, arXiv:2008.01062).

    Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i,    A_i <= 0

Differs from the paper: double Q and TD(lambda) (see ``systems/kits/q_learning.py``). The weights of the advantages have no bound;
published runs of it collapse late on several maps.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("qplex")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_replay as make
from jmarl.systems.kits.q_learning_config import ReplayConfig as Config


__all__ = ["Config", "Network", "make"]
