"""SPECTra-VDN: agents that query entities once, and a sum (arXiv:2503.11726).

    Q_i = SAQA(own, {ally_k}, {enemy_j}, h_i),    Q_tot = sum_i Q_i

The agent is ``networks/agents/saqa.py``, the rest ``systems/vdn.py``; nothing in either knows the size of a team.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("spectra_vdn")

from jmarl.systems.vdn import Config, Network, make


__all__ = ["Config", "Network", "make"]
