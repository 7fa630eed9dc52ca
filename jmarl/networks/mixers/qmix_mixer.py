"""QMIX: a monotone network whose weights are functions of the state (Rashid et al. 2018, arXiv:1803.11485).

    Q_tot = elu(q |W1(s)| + b1(s)) |W2(s)| + b2(s)                       section 4, figure 2

Absolute weights make dQ_tot/dq_i >= 0, so what is best for each agent is best for the team. Differs from the
paper: the networks behind W1 and W2 have a hidden layer, as in PyMARL2; kernels start as ``common.dense`` says;
with ``mask_dead`` the value of a dead agent is 0.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmarl.config import check_range
from jmarl.networks.mixers.common import Hypernet, chosen, counted, dense, flat_state
from jmarl.types import EntityObs


@dataclasses.dataclass(frozen=True)
class QMIXConfig:
    """Sizes; the parameters depend on the number of agents and the size of the state."""

    name: Literal["qmix"]
    mask_dead: bool
    embed: int
    """Hidden units of the mixing network."""
    hypernet: int
    """Hidden units of the networks that make its weights."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("system.mixer.embed", self.embed, 1)
        check_range("system.mixer.hypernet", self.hypernet, 1)


class QMIX(nn.Module):
    """The mixing network and the four networks that make its weights and biases."""

    config: QMIXConfig

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "*batch N A"],
        action: Int[Array, "*batch N"],
        obs: EntityObs,
    ) -> Float[Array, "*batch"]:
        """``q_tot``."""
        cfg, n_agents, state = self.config, q.shape[-2], flat_state(obs)
        taken = jnp.where(counted(obs, cfg.mask_dead), chosen(q, action), 0.0)
        w1 = jnp.abs(Hypernet(cfg.hypernet, n_agents * cfg.embed, name="w1")(state))
        w1 = w1.reshape(*taken.shape, cfg.embed)
        w2 = jnp.abs(Hypernet(cfg.hypernet, cfg.embed, name="w2")(state))
        hidden = nn.elu(
            jnp.einsum("...n,...nk->...k", taken, w1) + dense(cfg.embed, "b1")(state)
        )
        return (hidden * w2).sum(-1) + Hypernet(cfg.embed, 1, name="b2")(state)[..., 0]
