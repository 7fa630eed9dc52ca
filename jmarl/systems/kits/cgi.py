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
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.config import ConfigError, RunConfig, check, check_range
from jmarl.learning.cross_group import (
    PairErrors,
    cross_group_error,
    group_members,
    group_softmax,
    pair_errors,
)
from jmarl.learning.parallel import weighted_sum
from jmarl.networks.agents import make_agent
from jmarl.networks.agents.predictor import (
    Exposed,
    ExposedAgent,
    Prediction,
    Predictor,
)
from jmarl.networks.flatten import empty_obs
from jmarl.networks.heads import masked_categorical
from jmarl.system import NO_TERMS, LossTerms
from jmarl.systems.kits import ppo, q_learning
from jmarl.types import EntityObs, Key, Metrics, Params, Spec


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


PREDICTOR = "predictor"
"""Part of the parameters that only the loss reads, so acting fits any number of actions."""
Form = Callable[[Spec, "CGIConfig"], ppo.Term | q_learning.Term]
"""``policy_term`` or ``value_term``."""


def make_agent_with_cgi(
    spec: Spec, config: RunConfig, make_term: Form
) -> tuple[Any, LossTerms]:
    """Build the agent network of a configuration, and the CGI loss as a term.

    With ``weight=0`` there is no term.

    Args:
        spec: Description of the environment.
        config: Configuration of the run; ``config.system.cgi`` is a ``CGIConfig``.
        make_term: Form of the loss.

    Returns:
        Agent network, and what to add to the loss of a kit. Training without another action
        group to predict is an error.
    """
    net, cgi = make_agent(spec, config.network), config.system.cgi
    if cgi.weight == 0:
        return net, NO_TERMS

    def init(key: Key) -> Params:
        inputs = net.initial(1), empty_obs(spec, 1, 1), jnp.ones((1, 1), bool)
        (_, _, features), _ = jax.eval_shape(net.init_with_output, key, *inputs)
        return _predictor(spec, cgi).init(key, jnp.zeros(features.shape))

    terms, fault = (make_term(spec, cgi),), _fault(spec, config)
    return ExposedAgent(net), LossTerms(terms, {PREDICTOR: init}, fault)


def _predictor(spec: Spec, cgi: CGIConfig) -> Predictor:
    return Predictor(spec, cgi.width, cgi.conditioned)


def _fault(spec: Spec, config: RunConfig) -> ConfigError | None:
    """Return the error of training in an environment, if there is one."""
    fix = "set system.cgi.weight=0 or choose another environment"
    key, value = "system.cgi.weight", config.system.cgi.weight
    name = config.env["name"]
    try:
        rule = f"env={name} has continuous actions, which CGI cannot predict; {fix}"
        check(spec.discrete, key, value, rule)
        rule = (
            f"all units of env={name} have the same actions, so there is no other action "
            f"group to predict; {fix}"
        )
        check(len(spec.group_actions) > 1, key, value, rule)
    except ConfigError as error:
        return error
    return None


def predict(spec: Spec, cgi: CGIConfig, params: Params, aux: Exposed) -> Prediction:
    """Return the outputs of the agents with their predictions.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.
        params: Parameters of the system.
        aux: Outputs and features of the agents.
    """
    x = aux.features if cgi.grad_to_trunk else jax.lax.stop_gradient(aux.features)
    predicted: Any = _predictor(spec, cgi).apply(params[PREDICTOR], x)
    return Prediction(aux.out, predicted)


def policy_term(spec: Spec, cgi: CGIConfig) -> ppo.Term:
    """Build the policy form, which predicts the action probabilities of the other groups.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.

    Returns:
        Term of the PPO kit; its ``aux`` is an ``Exposed``.
    """

    def term(
        params: Params, aux: Exposed, batch: ppo.Batch, weights: ppo.Weights
    ) -> tuple[Float[Array, ""], Metrics]:
        prediction = predict(spec, cgi, params, aux)
        errors = policy_errors(spec, cgi, prediction, batch.steps.obs)
        return _weighted(cgi, errors, weights.row)

    return term


def policy_errors(
    spec: Spec, cgi: CGIConfig, prediction: Prediction, obs: EntityObs
) -> PairErrors:
    """Return the errors of the policy form, ``[T, B, N, K]``.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.
        prediction: Logits of the agents, and predicted logits.
        obs: Observations ``[T, B, N]``.
    """
    able = np.ones((len(spec.group_actions), spec.n_actions), np.float32)
    probs = jax.nn.softmax(masked_categorical(prediction.out, obs.avail).logits)
    predicted = group_softmax(prediction.predicted, spec)
    return _errors(cgi, obs, spec, Prediction(probs, predicted), able)


def value_term(spec: Spec, cgi: CGIConfig) -> q_learning.Term:
    """Build the value form, which predicts the action values of the other groups.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.

    Returns:
        Term of the Q-learning kit; its ``aux`` is an ``Exposed``.
    """

    def term(
        params: Params,
        aux: Exposed,
        steps: q_learning.Steps,
        weight: Float[Array, "T B"],
    ) -> tuple[Float[Array, ""], Metrics]:
        obs, aux = jax.tree.map(lambda x: x[:-1], (steps.obs, aux))
        prediction = predict(spec, cgi, params, aux)
        return _weighted(cgi, value_errors(spec, cgi, prediction, obs), weight)

    return term


def value_errors(
    spec: Spec, cgi: CGIConfig, prediction: Prediction, obs: EntityObs
) -> PairErrors:
    """Return the errors of the value form, ``[T, B, N, K]``.

    Args:
        spec: Description of the environment.
        cgi: Configuration of the loss.
        prediction: Action values of the agents, and predicted ones.
        obs: Observations ``[T, B, N]``.
    """
    able = np.asarray(spec.group_actions, np.float32)
    if cgi.space == "q":
        weights = able / able.sum(-1, keepdims=True)
        return _errors(cgi, obs, spec, prediction, weights)
    own_actions = group_members(obs, spec).astype(jnp.float32) @ able > 0
    probs = jax.nn.softmax(masked_categorical(prediction.out, own_actions).logits)
    predicted = group_softmax(prediction.predicted, spec)
    return _errors(cgi, obs, spec, Prediction(probs, predicted), np.ones_like(able))


def _errors(
    cgi: CGIConfig,
    obs: EntityObs,
    spec: Spec,
    prediction: Prediction,
    weights: np.ndarray,
) -> PairErrors:
    """Return the errors, given the weight of each action in the error of a group."""
    outputs, predicted = prediction
    if cgi.sg_target:
        outputs = jax.lax.stop_gradient(outputs)
    members = group_members(obs, spec)
    return pair_errors(predicted, outputs, members, obs.alive, weights)


def _weighted(
    cgi: CGIConfig, errors: PairErrors, row_weight: Float[Array, "T B"]
) -> tuple[Float[Array, ""], Metrics]:
    """Return the weighted mean error over rows, and the mean error as a metric."""
    loss = weighted_sum(cross_group_error(errors), row_weight)
    return cgi.weight * loss, {"cgi_loss": loss}
