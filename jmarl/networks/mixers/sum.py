"""VDN: the team's Q-value is the sum of the agents' Q-values.

    Q_tot = sum_i Q_i(u_i)

Sunehag et al. 2018 (arXiv:1706.05296), section 3. Differs from the paper: ``mask_dead`` omits dead
agents.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jmarl.networks.mixers.common import (
    Actions,
    AgentQ,
    TeamQ,
    agent_mask,
    q_of_actions,
)
from jmarl.types import EntityObs


@dataclasses.dataclass(frozen=True)
class SumConfig:
    """Configuration of ``Sum``, which has no parameters."""

    name: Literal["sum"]
    mask_dead: bool


class Sum(nn.Module):
    """Sum of the agents' Q-values."""

    config: SumConfig

    @nn.compact
    def __call__(self, q: AgentQ, action: Actions, obs: EntityObs) -> TeamQ:
        mask = agent_mask(obs, self.config.mask_dead)
        return jnp.where(mask, q_of_actions(q, action), 0.0).sum(-1)
