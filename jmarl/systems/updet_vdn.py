"""UPDeT-VDN: a transformer over entities as agent, and a sum (Hu et al. 2021, arXiv:2101.08001).

    Q_i = UPDeT(own, {ally_k}, {enemy_j}, h_i),    Q_tot = sum_i Q_i

The agent is ``networks/agents/updet.py``, the rest ``systems/vdn.py``; nothing in either knows the size of a team.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("updet_vdn")

from jmarl.systems.vdn import Config, Network, make


__all__ = ["Config", "Network", "make"]
