"""QPLEX: the team's value as values and weighted advantages (Wang et al. 2021, arXiv:2008.01062, section 3).

    q'_i(u) = w_i(s) q_i(u) + v_i(s),   a_i = q'_i(u_i) - max_u q'_i(u) <= 0         transformation
    Q_tot = sum_i max_u q'_i(u) + sum_i lambda_i(s, u_1 .. u_N) a_i                  duelling mix
    lambda_i = sum_k |key_k(s)| sigmoid(agent_ki(s)) sigmoid(act_ki(s, u_1 .. u_N))

With w and lambda above zero the best actions of the team are those with every a_i = 0, which are the agents' own;
beyond that lambda lets Q_tot be any function of the joint action. No gradient goes through a_i, and the maximum is
written as q'_i(u_i) - a_i, so that q learns as in a sum: ``sum q'_i(u_i) + sum (lambda_i - 1) a_i``.
Differs from the paper: w and v are functions of the state alone, and the gradient is stopped, both as in the
authors' code; kernels start as ``common.dense`` says; the maximum is over available actions; an agent that does
not count, with ``mask_dead`` every dead one, adds neither value nor advantage, and lambda does not see its action.

lambda has no upper bound, and win rates of QPLEX are known to collapse late in training: an unstable baseline.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmarl.config import check_range
from jmarl.networks.mixers.common import Hypernet, chosen, counted, flat_state
from jmarl.types import EntityObs


POSITIVE = 1e-10
"""Added to absolute values that must not be zero."""

UNAVAILABLE = -1e9
"""The value of an action that cannot be taken, for maxima."""


@dataclasses.dataclass(frozen=True)
class QPLEXConfig:
    """Sizes; the parameters depend on the numbers of agents and actions and the size of the state."""

    name: Literal["qplex"]
    mask_dead: bool
    kernels: int
    """Terms of the weight of an advantage."""
    hypernet: int
    """Hidden units of every network."""

    def __post_init__(self) -> None:
        """Check the sizes; a broken rule raises ``ConfigError``."""
        check_range("system.mixer.kernels", self.kernels, 1)
        check_range("system.mixer.hypernet", self.hypernet, 1)


class QPLEX(nn.Module):
    """The transformation of the agents' values, and the duelling mix."""

    config: QPLEXConfig

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "*batch N A"],
        action: Int[Array, "*batch N"],
        obs: EntityObs,
    ) -> Float[Array, "*batch"]:
        """``q_tot``."""
        cfg, state, counts = (
            self.config,
            flat_state(obs),
            counted(obs, self.config.mask_dead),
        )
        taken, n_agents = chosen(q, action), q.shape[-2]
        w = jnp.abs(Hypernet(cfg.hypernet, n_agents, name="w")(state)) + POSITIVE
        v = Hypernet(cfg.hypernet, n_agents, name="v")(state)
        best = jnp.where(obs.avail, q, UNAVAILABLE).max(-1)
        advantage = jnp.where(counts, jax.lax.stop_gradient(w * (taken - best)), 0.0)
        moves = jnp.where(counts[..., None], jax.nn.one_hot(action, q.shape[-1]), 0.0)
        weight = self._weight(state, moves)
        value = w * jnp.where(counts, taken, 0.0) + jnp.where(counts, v, 0.0)
        return (value + (weight - 1.0) * advantage).sum(-1)

    def _weight(
        self, state: Float[Array, "*batch S"], moves: Float[Array, "*batch N A"]
    ) -> Float[Array, "*batch N"]:
        """``lambda``, in one batched product for all its terms."""
        kernels = nn.vmap(
            Kernel,
            in_axes=None,  # pyright: ignore[reportArgumentType]  # Flax annotates too little
            axis_size=self.config.kernels,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        return kernels(self.config.hypernet, name="lambda")(state, moves).sum(0)


class Kernel(nn.Module):
    """One term of ``lambda``."""

    hidden: int

    @nn.compact
    def __call__(
        self, state: Float[Array, "*batch S"], moves: Float[Array, "*batch N A"]
    ) -> Float[Array, "*batch N"]:
        """A factor of the team, one of each agent in this state, and one of what all agents do in it."""
        n_agents = moves.shape[-2]
        joint = jnp.concatenate([state, moves.reshape(*state.shape[:-1], -1)], axis=-1)
        key = jnp.abs(Hypernet(self.hidden, 1, name="key")(state)) + POSITIVE
        agent = Hypernet(self.hidden, n_agents, name="agent")(state)
        act = Hypernet(self.hidden, n_agents, name="act")(joint)
        return key * nn.sigmoid(agent) * nn.sigmoid(act)
