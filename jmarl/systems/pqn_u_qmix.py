"""PQN-U-QMIX: U-QMIX without replay or target network (arXiv:2408.07395, arXiv:2407.04811).

    L = L_PQN-QMIX + lambda_I L_CGI

The loss of ``systems/pqn_vdn.py`` with a monotonic mixer, and the cross-group inverse loss of
``systems/u_qmix.py``.

Differs from the papers: neither combines PQN and this loss.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("pqn_u_qmix")

import dataclasses

from jmarl.config import RunConfig
from jmarl.networks.agents import AgentConfig as Network
from jmarl.system import System
from jmarl.systems.kits.cgi import CGIConfig, make_agent_with_cgi, value_term
from jmarl.systems.kits.q_learning import make_pqn
from jmarl.systems.kits.q_learning_config import PQNConfig
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(PQNConfig):
    """Configuration of Q-learning without replay, and of the CGI loss."""

    cgi: CGIConfig


def make(spec: Spec, config: RunConfig) -> System:
    """Build PQN-U-QMIX for an environment."""
    return make_pqn(spec, config, *make_agent_with_cgi(spec, config, value_term))
