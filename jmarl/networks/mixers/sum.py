"""VDN: the team's value is the sum of the agents' (Sunehag et al. 2018, arXiv:1706.05296, section 3).

    Q_tot = sum_i Q_i(u_i)

Differs from the paper: with ``mask_dead`` the dead are left out.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmarl.networks.mixers.common import chosen, counted
from jmarl.types import EntityObs


@dataclasses.dataclass(frozen=True)
class SumConfig:
    """No parameters."""

    name: Literal["sum"]
    mask_dead: bool


class Sum(nn.Module):
    """The sum."""

    config: SumConfig

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "*batch N A"],
        action: Int[Array, "*batch N"],
        obs: EntityObs,
    ) -> Float[Array, "*batch"]:
        """``q_tot``."""
        return jnp.where(
            counted(obs, self.config.mask_dead), chosen(q, action), 0.0
        ).sum(-1)
