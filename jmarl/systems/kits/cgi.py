"""Cross-group inverse (CGI) loss, as a term of the PPO kit and of the Q-learning kit.

Each agent predicts the policy or the action values of every other action group, so that its memory
encodes their behavior (arXiv:2408.07395).

    policy form:  L = mean || softmax(z_i,k) - mean_{j in k} pi_j ||^2
    value form:   L = mean || q_i,k - mean_{j in k} Q_j ||^2 / |A_k|

z_i,k and q_i,k are predictions of agent i for group k, and A_k are the actions of group k. The mean
runs over the pairs (i, k) of a row, then over valid rows (see ``learning/cross_group.py``).

Differs from the paper, as far as it is known to us:

* There can be more than two groups, each with its own output of the predictor. With two groups,
  this is the paper's form.
* The weight of the loss, the reductions, and the stop-gradient on the targets are our choices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.config import RunConfig, check, check_range
from jmarl.learning.cross_group import (
    PairErrors,
    cross_group_error,
    group_members,
    group_softmax,
    pair_errors,
)
from jmarl.learning.parallel import weighted_sum
from jmarl.networks.agents import make_agent
from jmarl.networks.agents.predictor import PredictingAgent, Prediction
from jmarl.networks.heads import masked_categorical
from jmarl.systems.kits import ppo, q_learning
from jmarl.types import EntityObs, Metrics, Params, Spec


@dataclasses.dataclass(frozen=True)
class CGIConfig:
    """Configuration of the CGI loss."""

    weight: float
    """Weight of the loss; 0 leaves out the predictor."""
    width: int
    space: Literal["q", "softmax_q"]
    """Value form: predict action values, or their softmax over the actions of the group."""
    conditioned: bool
    sg_target: bool
    """True: no gradient flows through the outputs that are predicted."""
    grad_to_trunk: bool

    def __post_init__(self) -> None:
        check_range("system.cgi.weight", self.weight, 0)
        check_range("system.cgi.width", self.width, 1)


TermT = TypeVar("TermT")


def make_agent_with_cgi(
    spec: Spec, config: RunConfig, make_term: Callable[[Spec, CGIConfig], TermT]
) -> tuple[Any, list[TermT]]:
    """Build the agent network of a configuration, and the CGI loss as a term.

    With ``weight=0`` the network has no predictor, and there is no term.

    Args:
        spec: Description of the environment.
        config: Configuration of the run; ``config.system.cgi`` is a ``CGIConfig``.
        make_term: ``policy_term`` or ``value_term``.

    Returns:
        Agent network, and the terms to add to the loss of a kit.

    Raises:
        ConfigError: If there is no other action group to predict.
    """
    net, cgi = make_agent(spec, config.network), config.system.cgi
    if cgi.weight == 0:
        return net, []
    _check_groups(spec, config)
    net = PredictingAgent(net, spec, cgi.width, cgi.conditioned, cgi.grad_to_trunk)
    return net, [make_term(spec, cgi)]


def _check_groups(spec: Spec, config: RunConfig) -> None:
    fix = "set system.cgi.weight=0 or choose another environment"
    key, value = "system.cgi.weight", config.system.cgi.weight
    name = config.env["name"]
    rule = f"env={name} has continuous actions, which CGI cannot predict; {fix}"
    check(spec.discrete, key, value, rule)
    rule = (
        f"all units of env={name} have the same actions, so there is no other action "
        f"group to predict; {fix}"
    )
    check(len(spec.agent_groups) > 1, key, value, rule)


def policy_term(spec: Spec, cgi: CGIConfig) -> ppo.Term:
    """Build the policy form, which predicts the action probabilities of the other groups.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.

    Returns:
        Term of the PPO kit; its ``aux`` is a ``Prediction``.
    """

    def term(
        params: Params, aux: Prediction, batch: ppo.Batch, weights: ppo.Weights
    ) -> tuple[Float[Array, ""], Metrics]:
        errors = policy_errors(spec, aux, batch.steps.obs, cgi.sg_target)
        return _weighted(cgi, errors, weights.row)

    return term


def policy_errors(
    spec: Spec, aux: Prediction, obs: EntityObs, sg_target: bool = True
) -> PairErrors:
    """Return the errors of the policy form, ``[T, B, N, K]``.

    Args:
        spec: Description of the environment.
        aux: Outputs and predictions of the agents.
        obs: Observations ``[T, B, N]``.
        sg_target: True: no gradient flows through the outputs that are predicted.
    """
    able = np.ones((len(spec.group_actions), spec.n_actions), np.float32)
    probs = jax.nn.softmax(masked_categorical(aux.out, obs.avail).logits)
    predicted = group_softmax(aux.predicted, spec)
    return _errors(sg_target, obs, spec, predicted, probs, able)


def value_term(spec: Spec, cgi: CGIConfig) -> q_learning.Term:
    """Build the value form, which predicts the action values of the other groups.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.

    Returns:
        Term of the Q-learning kit; its ``aux`` is a ``Prediction``.
    """
    able = np.asarray(spec.group_actions, np.float32)
    in_mean = able / able.sum(-1, keepdims=True)
    in_sum = np.ones_like(able)

    def term(
        params: Params,
        aux: Prediction,
        steps: q_learning.Steps,
        weight: Float[Array, "T B"],
    ) -> tuple[Float[Array, ""], Metrics]:
        obs, aux = jax.tree.map(lambda x: x[:-1], (steps.obs, aux))
        if cgi.space == "q":
            values = aux.predicted, aux.out, in_mean
            return _weighted(cgi, _errors(cgi.sg_target, obs, spec, *values), weight)
        own_actions = group_members(obs, spec).astype(jnp.float32) @ able > 0
        probs = jax.nn.softmax(masked_categorical(aux.out, own_actions).logits)
        predicted = group_softmax(aux.predicted, spec)
        values = predicted, probs, in_sum
        return _weighted(cgi, _errors(cgi.sg_target, obs, spec, *values), weight)

    return term


def _errors(
    sg_target: bool,
    obs: EntityObs,
    spec: Spec,
    predicted: Float[Array, "T B N K A"],
    outputs: Float[Array, "T B N A"],
    weights: np.ndarray,
) -> PairErrors:
    if sg_target:
        outputs = jax.lax.stop_gradient(outputs)
    members = group_members(obs, spec)
    return pair_errors(predicted, outputs, members, obs.alive, weights)


def _weighted(
    cgi: CGIConfig, errors: PairErrors, row_weight: Float[Array, "T B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Return the weighted mean error over rows, and the mean error as a metric."""
    loss = weighted_sum(cross_group_error(errors), row_weight)
    return cgi.weight * loss, {"cgi_loss": loss}
