"""SPECTra-QMIX: agents that query entities once, mixed by QMIX (arXiv:2503.11726).

    Q_i = SAQA(own, {ally_k}, {enemy_j}, h_i),    Q_tot = QMIX(Q_1, ..., Q_N, s)

The agent is ``networks/agents/saqa.py``, the rest ``systems/qmix.py``; the mixer fits one team size.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("spectra_qmix")

from jmarl.systems.qmix import Config, Network, make


__all__ = ["Config", "Network", "make"]
