"""HPN-QMIX: agents whose weights are made from entities, mixed by QMIX (Hao et al. 2022, arXiv:2203.05285).

    Q_i = HPN(own, {ally_k}, {enemy_j}, h_i),    Q_tot = QMIX(Q_1, ..., Q_N, s)

The agent is ``networks/agents/hpn.py``, the rest ``systems/qmix.py``. The mixer is the published one, on a flat state:
the system is not blind to the order of units, and its parameters fit one team size.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("hpn_qmix")

from jmarl.systems.qmix import Config, Network, make


__all__ = ["Config", "Network", "make"]
