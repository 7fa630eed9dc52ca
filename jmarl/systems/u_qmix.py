"""U-QMIX: QMIX with unified actions and the cross-group inverse loss (arXiv:2408.07395).

    L = L_QMIX + lambda_I L_CGI
    L_CGI = mean_{i, k} || q_i,k - mean_{j in k} Q_j ||^2 / |A_k|

Heterogeneous units share one network. Each action has one meaning in the unified action space, and
the actions of other units are masked. From its memory, each agent i predicts the mean action values
of every other action group k (see ``systems/kits/cgi.py``). The rest is
``systems/qmix.py``, with any agent network and mixer.

Differs from the paper: see ``systems/kits/cgi.py`` and ``systems/qmix.py``.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("u_qmix")

import dataclasses

from jmarl.config import RunConfig
from jmarl.networks.agents import AgentConfig as Network
from jmarl.system import System
from jmarl.systems.kits.cgi import CGIConfig, make_agent_with_cgi, value_term
from jmarl.systems.kits.q_learning import make_replay
from jmarl.systems.kits.q_learning_config import ReplayConfig
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(ReplayConfig):
    """Configuration of Q-learning with replay, and of the CGI loss."""

    cgi: CGIConfig


def make(spec: Spec, config: RunConfig) -> System:
    """Build U-QMIX for an environment."""
    return make_replay(spec, config, *make_agent_with_cgi(spec, config, value_term))
