"""UPDeT-QMIX: a transformer over entities as agent, mixed by QMIX (Hu et al. 2021, arXiv:2101.08001).

    Q_i = UPDeT(own, {ally_k}, {enemy_j}, h_i),    Q_tot = QMIX(Q_1, ..., Q_N, s)

The agent is ``networks/agents/updet.py``, the rest ``systems/qmix.py``; the mixer fits one team size.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("updet_qmix")

from jmarl.systems.qmix import Config, Network, make


__all__ = ["Config", "Network", "make"]
