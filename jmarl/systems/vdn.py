"""VDN: the team's value is the sum of the agents' values (Sunehag et al. 2018, arXiv:1706.05296).

    L = 1/2 (sum_i Q(o_i, u_i) - G)^2,    G = TD(lambda) of sum_i Q_target(o_i, argmax_u Q(o_i, u))

Agents share one network, with memory ``none``, ``gru`` or ``ssm``.

Differs from the paper:

* Double Q and TD(lambda), as in the tuned form of Hu et al. 2021 (arXiv:2102.03479).
* Sequences of the replay buffer are whole rollouts (see ``systems/kits/q_learning.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("vdn")

from jmarl.networks.agents import AgentConfig as Network
from jmarl.systems.kits.q_learning import make_replay as make
from jmarl.systems.kits.q_learning_config import ReplayConfig as Config


__all__ = ["Config", "Network", "make"]
