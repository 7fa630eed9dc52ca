"""QPLEX: the team's Q-value from the agents' values and weighted advantages.

Wang et al. 2021 (arXiv:2008.01062), section 3.

    q'_i(u) = w_i(s) q_i(u) + v_i(s),   a_i = q'_i(u_i) - max_u q'_i(u) <= 0         transformation
    Q_tot = sum_i max_u q'_i(u) + sum_i lambda_i(s, u_1 .. u_N) a_i                  dueling mix
    lambda_i = sum_k |key_k(s)| sigmoid(agent_ki(s)) sigmoid(act_ki(s, u_1 .. u_N))

With w and lambda above zero, the team's best joint actions are those with every a_i = 0, which are
the agents' own best actions. Apart from that, lambda lets Q_tot be any function of the joint
action.

The gradient through a_i is stopped, and the maximum is written as q'_i(u_i) - a_i. So q learns as
in a sum: ``sum q'_i(u_i) + sum (lambda_i - 1) a_i``.

Differs from the paper:
* w and v are functions of the state only, and the gradient is stopped, both as in the authors'
  code.
* w is 1 unless ``weighted`` is set, which is an option of the authors' code too. A learned w often
  falls to 0 before lambda has grown. Q_tot then does not depend on the actions, and nothing pulls w
  back. ``benchmarks.matrix_game`` counts the starts from which each form solves a game.
* Kernels start as in ``common.dense``.
* The maximum is over available actions.
* A masked agent (absent, or dead with ``mask_dead``) adds neither value nor advantage, and lambda
  does not depend on its action.

lambda has no upper bound, and win rates of QPLEX are known to collapse late in training: an
unstable baseline.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.config import check_range
from jmarl.networks.mixers.common import (
    Actions,
    AgentQ,
    Hypernet,
    TeamQ,
    agent_mask,
    flat_state,
    q_of_actions,
)
from jmarl.nn.attention import MASKED
from jmarl.types import EntityObs


POSITIVE = 1e-10
"""Constant added to absolute values that must not be zero."""


@dataclasses.dataclass(frozen=True)
class QPLEXConfig:
    """Sizes of ``QPLEX``.

    The parameters depend on the numbers of agents and actions and on the size of the state.
    """

    name: Literal["qplex"]
    mask_dead: bool
    weighted: bool
    """True: learn the weights w of the transformation. False: w is 1."""
    kernels: int
    """Number of terms of ``lambda``."""
    hypernet: int
    """Hidden units of every network."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: If a size is out of range.
        """
        check_range("system.mixer.kernels", self.kernels, 1)
        check_range("system.mixer.hypernet", self.hypernet, 1)


class QPLEX(nn.Module):
    """Transformation of the agents' Q-values, and their dueling mix."""

    config: QPLEXConfig

    @nn.compact
    def __call__(self, q: AgentQ, action: Actions, obs: EntityObs) -> TeamQ:
        cfg = self.config
        *_, n_agents, n_actions = q.shape
        state = flat_state(obs)
        mask = agent_mask(obs, cfg.mask_dead)
        taken = q_of_actions(q, action)
        # [..., N] each
        w = jnp.ones(())
        if cfg.weighted:
            w = Hypernet(cfg.hypernet, n_agents, name="w")(state)
            w = jnp.abs(w) + POSITIVE
        v = Hypernet(cfg.hypernet, n_agents, name="v")(state)
        best = jnp.where(obs.avail, q, MASKED).max(-1)
        advantage = jax.lax.stop_gradient(w * (taken - best))
        advantage = jnp.where(mask, advantage, 0.0)
        joint_action = jax.nn.one_hot(action, n_actions)
        joint_action = jnp.where(mask[..., None], joint_action, 0.0)  # [..., N, A]
        weight = self._advantage_weight(state, joint_action)
        v = jnp.where(mask, v, 0.0)
        value = w * jnp.where(mask, taken, 0.0) + v
        return (value + (weight - 1.0) * advantage).sum(-1)

    def _advantage_weight(
        self, state: Float[Array, "*batch S"], joint_action: Float[Array, "*batch N A"]
    ) -> Float[Array, "*batch N"]:
        """Return ``lambda``; all its terms are one batched product."""
        kernels = nn.vmap(
            Kernel,
            in_axes=None,  # pyright: ignore[reportArgumentType]  # Flax annotates too little
            axis_size=self.config.kernels,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        terms = kernels(self.config.hypernet, name="lambda")(state, joint_action)
        return terms.sum(0)


class Kernel(nn.Module):
    """One term of ``lambda``, a product of three factors.

    The factors are one of the team and one per agent from the state, and one per agent from the
    state and the joint action.
    """

    hidden: int

    @nn.compact
    def __call__(
        self, state: Float[Array, "*batch S"], joint_action: Float[Array, "*batch N A"]
    ) -> Float[Array, "*batch N"]:
        n_agents = joint_action.shape[-2]
        flat_actions = joint_action.reshape(*state.shape[:-1], -1)
        joint = jnp.concatenate([state, flat_actions], axis=-1)  # [..., S + N * A]
        key = Hypernet(self.hidden, 1, name="key")(state)
        agent = Hypernet(self.hidden, n_agents, name="agent")(state)
        act = Hypernet(self.hidden, n_agents, name="act")(joint)
        key = jnp.abs(key) + POSITIVE
        return key * nn.sigmoid(agent) * nn.sigmoid(act)
