"""HPN-QPLEX: agents whose weights are made from entities, mixed by QPLEX (Hao et al. 2022, arXiv:2203.05285).

    Q_i = HPN(own, {ally_k}, {enemy_j}, h_i),    Q_tot = QPLEX(Q_1, ..., Q_N, s)

The agent is ``networks/agents/hpn.py``, the rest ``systems/qplex.py``.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("hpn_qplex")

from jmarl.systems.qplex import Config, Network, make


__all__ = ["Config", "Network", "make"]
