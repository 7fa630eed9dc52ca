"""QMIX: a monotone network with weights from the state (Rashid et al. 2018, arXiv:1803.11485).

    Q_tot = elu(q |W1(s)| + b1(s)) |W2(s)| + b2(s)                       section 4, figure 2

Absolute weights make dQ_tot/dq_i >= 0, so each agent's best action is part of the team's best joint
action. Differs from the paper: the networks of W1 and W2 have a hidden layer, as in PyMARL2;
kernels start as in ``common.dense``; ``mask_dead``, on by default, sets the value of a dead
agent to 0.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jmarl.config import check_range
from jmarl.networks.mixers.common import (
    Actions,
    AgentQ,
    Hypernet,
    TeamQ,
    agent_mask,
    dense,
    flat_state,
    q_of_actions,
)
from jmarl.types import EntityObs


@dataclasses.dataclass(frozen=True)
class QMIXConfig:
    """Sizes of ``QMIX``; the parameters depend on the number of agents and the state's size."""

    name: Literal["qmix"]
    mask_dead: bool
    embed: int
    """Hidden units of the mixing network."""
    hypernet: int
    """Hidden units of the networks that generate its weights."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: If a size is out of range.
        """
        check_range("system.mixer.embed", self.embed, 1)
        check_range("system.mixer.hypernet", self.hypernet, 1)


class QMIX(nn.Module):
    """Mixing network and the four networks that generate its weights and biases."""

    config: QMIXConfig

    @nn.compact
    def __call__(self, q: AgentQ, action: Actions, obs: EntityObs) -> TeamQ:
        cfg = self.config
        n_agents = q.shape[-2]
        state = flat_state(obs)
        mask = agent_mask(obs, cfg.mask_dead)
        taken = jnp.where(mask, q_of_actions(q, action), 0.0)
        w1 = Hypernet(cfg.hypernet, n_agents * cfg.embed, name="w1")(state)
        w1 = jnp.abs(w1).reshape(*taken.shape, cfg.embed)  # [..., N, K]
        b1 = dense(cfg.embed, "b1")(state)
        # values are not rounded, in any precision of a run
        mixed = jnp.einsum("...n,...nk->...k", taken, w1, precision="highest")
        hidden = nn.elu(mixed + b1)
        w2 = Hypernet(cfg.hypernet, cfg.embed, name="w2")(state)  # [..., K]
        b2 = Hypernet(cfg.embed, 1, name="b2")(state)  # [..., 1]
        value = (hidden * jnp.abs(w2)).sum(-1)
        return value + b2[..., 0]
