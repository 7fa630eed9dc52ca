"""SPECTra-QMIX+: agents that query entities once, mixed by a set hypernetwork (arXiv:2503.11726).

    Q_i = SAQA(own, {ally_k}, {enemy_j}, h_i),    Q_tot = ST-HyperNet(Q_1, ..., Q_N, {unit_k})

The agent is ``networks/agents/saqa.py``, the mixer ``networks/mixers/st_hypernet.py``, the rest ``systems/qmix.py``. No
parameter knows the size of a team, or the order of its units. Differs from the published code: the mixer's weights are
divided by the number of living agents (``system.mixer.norm=mean``), else values grow with the team; see both files.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("spectra_qmix_plus")

from jmarl.systems.qmix import Config, Network, make


__all__ = ["Config", "Network", "make"]
