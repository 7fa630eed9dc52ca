"""HPN-VDN: agents whose weights are made from entities, and a sum (Hao et al. 2022, arXiv:2203.05285).

    Q_i = HPN(own, {ally_k}, {enemy_j}, h_i),    Q_tot = sum_i Q_i

The agent is ``networks/agents/hpn.py``, the rest ``systems/vdn.py``; nothing in either knows the size of a team.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("hpn_vdn")

from jmarl.systems.vdn import Config, Network, make


__all__ = ["Config", "Network", "make"]
