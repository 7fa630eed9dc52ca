"""PPO kit: build a system from a policy and a critic.

    L = - mean_P min(rho A, clip(rho, 1 - eps, 1 + eps) A) - c_H mean_P H + c_V mean_V l(V, G)

``mean_P`` (policy) runs over living agents on valid rows. ``mean_V`` (value) runs over present
agents on valid rows, or over living ones with ``mask_dead_values``. A is the generalized
advantage estimate and G the lambda-return. A system can add terms of its own to the loss.

A system calls the kit with networks (``actor_critic_system``) or with functions
(``ppo_system``). Systems do not inherit from the kit. Every option of the kit is of use to several
systems. A system with another update builds it from ``jmarl.learning``.

Schulman et al. 2017 (arXiv:1707.06347), eq. 7; multi-agent practice of Yu et al. 2022
(arXiv:2103.01955).

Differs from the papers:

* Time limits bootstrap from the true final observation.
* Dead agents are masked from policy loss and entropy. Their values continue to learn from the
  team's reward.
* Advantages are normalized once per learning phase, over the entries of the policy loss.
* Log-ratios beyond ``MAX_LOG_RATIO`` are clipped, and have no gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Shaped

from jmarl.config import check_positive, check_range
from jmarl.learning.minibatch import MinibatchConfig, scan_minibatches
from jmarl.learning.normalizer import (
    ValueStats,
    denormalize,
    init_stats,
    mean_std,
    normalize,
    update_stats,
)
from jmarl.learning.optimizers import (
    apply_gradients,
    by_part,
    optimizer,
    skipped_steps,
)
from jmarl.learning.parallel import (
    add_terms,
    gradient,
    mean_weights,
    sum_rows,
    weighted,
    weighted_sum,
)
from jmarl.learning.returns import lambda_return
from jmarl.networks.flatten import empty_obs
from jmarl.networks.heads import choose, rescale_values
from jmarl.networks.rows import add_time_axis, drop_time_axis
from jmarl.system import (
    NO_TERMS,
    ActFn,
    CarryFn,
    Learner,
    LossTerms,
    System,
    UpdateFn,
    init_parts,
)
from jmarl.types import (
    Carry,
    EntityObs,
    Key,
    Metrics,
    Params,
    Rollout,
    Spec,
    TimeStep,
    Transition,
)


class Evaluation(NamedTuple):
    """Results of the networks for stored actions."""

    logp: Float[Array, "T B N"]
    """Log-probability of the action."""
    entropy: Float[Array, "T B N"]
    """Entropy of the policy."""
    value: Float[Array, "T B N"]
    """Value of the observation, in normalized units."""
    aux: Any = None
    """Further results that additional terms of the loss need."""


EvaluateFn = Callable[[Params, Carry, Transition], Evaluation]
"""Function ``(params, carry, steps) -> Evaluation``.

``carry`` is the memory before row 0. ``steps.extras`` holds the extras of ``act``.
"""

ValueFn = Callable[[Params, Carry, TimeStep], Float[Array, "B N"]]
"""Function ``(params, carry, timestep) -> value`` for the bootstrap after the last row.

The value is in normalized units.
"""

LossFn = Callable[
    [Params, Carry, "Batch", "Weights"],
    tuple[Float[Array, ""], tuple[Metrics, Metrics]],
]
"""Function ``(params, carry, minibatch, weights) -> (scalar, (sums, maxima))``.

Each device calls it with its own environments. The scalar and ``sums`` are added over devices, so
a mean must be a sum with ``weights``. For each of ``maxima``, the maximum over devices is reported.
"""


MAX_LOG_RATIO = 20.0
"""Largest absolute log-ratio: its exponential squared is finite in float32."""


@dataclasses.dataclass(frozen=True)
class PPOConfig(MinibatchConfig):
    """Configuration of the PPO kit. A system's ``Config`` can extend it.

    Defaults and explanations are in ``configs/system``.
    """

    gae_lambda: float
    clip: float
    entropy_coef: float
    value_coef: float
    value_clip: float
    huber_delta: float
    value_memory: int
    popart: bool
    mask_dead_values: bool
    advantage: Literal["per_agent", "joint"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("system.gae_lambda", self.gae_lambda, 0, 1)
        check_positive("system.clip", self.clip)
        for key in ("entropy_coef", "value_coef", "value_clip", "huber_delta"):
            check_range(f"system.{key}", getattr(self, key), 0)
        check_range("system.value_memory", self.value_memory, 0)

    @property
    def rescales_values(self) -> bool:
        """True if the critic's parameters hold only with the statistics of the same update."""
        return self.popart


class PPOLearner(Learner):
    """State of learning with PPO: parameters, optimizer, value statistics, and a counter."""

    updates: Int[Array, ""]

    def after(self, params: Params, opt_state: Any, stats: ValueStats) -> PPOLearner:
        """Return the state after one more update."""
        kept = {"opt_state": opt_state, "value_stats": stats}
        return self.replace(params=params, updates=self.updates + 1, **kept)


class PPOExtras(struct.PyTreeNode):
    """Outputs of ``act`` that are stored with the action. A system can extend it."""

    logp: Float[Array, "*batch N"]
    """Log-probability of the action."""
    value: Float[Array, "*batch N"]
    """Value of the observation, in normalized units."""
    sample: Shaped[Array, "*batch N ..."]
    """Sample of the distribution: the action, or the vector before the tanh."""


class Batch(struct.PyTreeNode):
    """Experience of one learning phase, or a minibatch of it."""

    steps: Transition
    """Rows with leaves ``[T, B, ...]``."""
    advantage: Float[Array, "T B N"]
    """Advantages, normalized over ``policy_mask``."""
    target: Float[Array, "T B N"]
    """Value targets, in normalized units."""

    @property
    def policy_mask(self) -> Bool[Array, "T B N"]:
        """True for living agents on valid rows, the entries of the policy loss."""
        return self.steps.valid[..., None] & self.steps.obs.alive


class Weights(NamedTuple):
    """Weights of the means over a minibatch. Each sums to 1 over all devices, or to 0."""

    policy: Float[Array, "T B N"]
    value: Float[Array, "T B N"]
    row: Float[Array, "T B"]


Term = Callable[[Params, Any, Batch, Weights], tuple[Float[Array, ""], Metrics]]
"""Additional term ``(params, aux, minibatch, weights) -> (scalar, sums)`` of the loss.

``aux`` is that of the ``Evaluation``. As in ``LossFn``, the results are added over devices. A term
sees the environments of one device only: it takes means over agents within a row, and means over
rows with ``weights.row``.
"""


def loss_weights(batch: Batch, cfg: PPOConfig) -> Weights:
    """Return the weights of policy loss, value loss, and losses of whole rows.

    Args:
        batch: Minibatch with all of its environments.
        cfg: Configuration of the kit.

    Returns:
        Weights ``[T, B, N]``, and ``[T, B]`` of valid rows.
    """
    return Weights(
        policy=mean_weights(batch.policy_mask),
        value=mean_weights(_value_mask(batch.steps, cfg)),
        row=mean_weights(batch.steps.valid),
    )


def masked_mean(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Return the mean over a mask of rows.

    Args:
        x: Numbers ``[T, B, ...]``. Masked entries may be anything, including NaN.
        mask: Entries that count ``[T, B, ...]``.

    Returns:
        Scalar; 0 if the mask is empty.
    """
    return sum_rows(weighted(x, mean_weights(mask)))


def masked_variance(
    x: Float[Array, "..."], mask: Bool[Array, "..."]
) -> Float[Array, ""]:
    """Return the variance over a mask of rows.

    Args:
        x: Numbers ``[T, B, ...]``. Masked entries may be anything, including NaN.
        mask: Entries that count ``[T, B, ...]``.

    Returns:
        Scalar; 0 if the mask is empty.
    """
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def _value_mask(steps: Transition, cfg: PPOConfig) -> Bool[Array, "T B N"]:
    agents = steps.obs.alive if cfg.mask_dead_values else steps.obs.present
    return steps.valid[..., None] & agents


def _team_mean(obs: EntityObs, x: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    return jnp.broadcast_to(obs.team_mean(x)[..., None], x.shape)


def advantages_and_targets(
    rollout: Rollout, value: Float[Array, "T+1 B N"], cfg: PPOConfig
) -> tuple[Float[Array, "T B N"], Float[Array, "T B N"]]:
    """Compute advantages and value targets in units of the scaled reward.

    With ``advantage: joint``, values and rewards are replaced by their means over the team. The
    advantage decomposition of sequence policies is stated for this joint advantage.

    Args:
        rollout: Experience of T rows.
        value: Values in units of the scaled reward, including the time step after the rollout.
        cfg: Configuration of the kit.

    Returns:
        Advantages ``[T, B, N]`` and value targets ``[T, B, N]``.
    """
    steps = rollout.steps
    reward = steps.reward * cfg.reward_scale
    if cfg.advantage == "joint":
        reward = _team_mean(steps.obs, reward)
        row_values = _team_mean(steps.obs, value[:-1])
        last_value = _team_mean(rollout.last.obs, value[-1])
        value = jnp.concatenate([row_values, last_value[None]])
    valid = jnp.concatenate([steps.valid, rollout.last.valid[None]])
    target = lambda_return(
        reward, steps.terminated, valid, value, gamma=cfg.gamma, lam=cfg.gae_lambda
    )
    return target - value[:-1], target


def make_batch(
    rollout: Rollout, bootstrap: Float[Array, "B N"], stats: ValueStats, cfg: PPOConfig
) -> tuple[Batch, ValueStats, Metrics]:
    """Compute the batch of a learning phase, and update the value statistics.

    Args:
        rollout: Experience of T rows.
        bootstrap: Values of the time step after the rollout, in normalized units.
        stats: Value statistics during the rollout. They convert its values to units of reward.
        cfg: Configuration of the kit.

    Returns:
        Batch with leaves ``[T, B, ...]``, the new statistics, and scalar metrics. The new
        statistics normalize the targets of the batch.
    """
    batch, stats, metrics = make_raw_batch(rollout, bootstrap, stats, cfg)
    advantage = normalize_advantage(batch.advantage, batch.policy_mask)
    return batch.replace(advantage=advantage), stats, metrics


def make_raw_batch(
    rollout: Rollout, bootstrap: Float[Array, "B N"], stats: ValueStats, cfg: PPOConfig
) -> tuple[Batch, ValueStats, Metrics]:
    """Compute the batch of ``make_batch`` with advantages in units of the scaled reward."""
    steps = rollout.steps
    value = denormalize(stats, jnp.concatenate([steps.extras.value, bootstrap[None]]))
    advantage, target = advantages_and_targets(rollout, value, cfg)
    value_mask = _value_mask(steps, cfg)
    rate = min(1.0, steps.valid.size / cfg.value_memory) if cfg.value_memory else 0.0
    stats = update_stats(stats, target, value_mask, rate=rate)
    batch = Batch(steps=steps, advantage=advantage, target=normalize(stats, target))
    unexplained = masked_variance(target - value[:-1], value_mask)
    total = masked_variance(target, value_mask) + 1e-8
    metrics = {
        "value_mean": masked_mean(value[:-1], value_mask),
        "explained_variance": 1.0 - unexplained / total,
    }
    return batch, stats, metrics


def normalize_advantage(
    advantage: Float[Array, "..."], mask: Bool[Array, "..."]
) -> Float[Array, "..."]:
    """Return advantages of mean 0 and standard deviation 1 over a mask.

    Args:
        advantage: Advantages ``[...]``.
        mask: Entries of the policy loss ``[...]``.

    Returns:
        Advantages ``[...]``.
    """
    centered = advantage - masked_mean(advantage, mask)
    scale = jnp.sqrt(masked_variance(advantage, mask)) + 1e-5
    return centered / scale


def adapt_values(
    params: Params, batch: Batch, old: ValueStats, new: ValueStats
) -> tuple[Params, Batch]:
    """Convert a critic and its stored values from the units of old statistics to those of new ones.

    Args:
        params: Parameters of the critic, or of all networks.
        batch: Batch whose values are in the units of ``old``.
        old: Statistics during the rollout.
        new: Statistics of this learning phase.

    Returns:
        Parameters and batch in the units of ``new``.
    """
    params = rescale_values(params, mean_std(old), mean_std(new))
    extras = batch.steps.extras
    value = normalize(new, denormalize(old, extras.value))
    steps = batch.steps.replace(extras=extras.replace(value=value))
    return params, batch.replace(steps=steps)


def value_error(
    value: Float[Array, "..."], target: Float[Array, "..."], cfg: PPOConfig
) -> Float[Array, "..."]:
    """Return the Huber loss, or half the square if ``huber_delta`` is 0.

    Args:
        value: Values ``[...]``, in normalized units.
        target: Value targets ``[...]``, in the same units.
        cfg: Configuration of the kit.

    Returns:
        Errors ``[...]``.
    """
    if cfg.huber_delta:
        return optax.huber_loss(value, target, delta=cfg.huber_delta)
    return 0.5 * (value - target) ** 2


def value_loss(
    value: Float[Array, "..."],
    old: Float[Array, "..."],
    target: Float[Array, "..."],
    cfg: PPOConfig,
) -> Float[Array, "..."]:
    """Return the larger of the errors of the value and of the clipped value.

    If ``value_clip`` is 0, the value is not clipped.

    Args:
        value: Values ``[...]``.
        old: Values that were stored when acting ``[...]``.
        target: Value targets ``[...]``.
        cfg: Configuration of the kit.

    Returns:
        Errors ``[...]``. All arguments are in normalized units.
    """
    error = value_error(value, target, cfg)
    if not cfg.value_clip:
        return error
    clipped = old + jnp.clip(value - old, -cfg.value_clip, cfg.value_clip)
    return jnp.maximum(error, value_error(clipped, target, cfg))


def policy_loss(
    logp: Float[Array, "T B N"],
    entropy: Float[Array, "T B N"],
    batch: Batch,
    weights: Weights,
    cfg: PPOConfig,
) -> tuple[Float[Array, ""], tuple[Metrics, Metrics]]:
    """Return the clipped policy loss less the entropy bonus, and metrics ``(sums, maxima)``.

    Args:
        logp: Log-probabilities of the stored actions ``[T, B, N]``.
        entropy: Entropies of the policy ``[T, B, N]``.
        batch: Minibatch of one device.
        weights: Its weights.
        cfg: Configuration of the kit.

    Returns:
        Part of the loss in the formula of this module, in the form of a ``LossFn``.
    """
    log_ratio = jnp.where(batch.policy_mask, logp - batch.steps.extras.logp, 0.0)
    log_ratio = jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - cfg.clip, 1.0 + cfg.clip)
    gain = jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)
    outside = (jnp.abs(ratio - 1.0) > cfg.clip).astype(jnp.float32)
    sums = {
        "policy_loss": -weighted_sum(gain, weights.policy),
        "entropy": weighted_sum(entropy, weights.policy),
        "approx_kl": weighted_sum(ratio - 1.0 - log_ratio, weights.policy),
        "clip_fraction": weighted_sum(outside, weights.policy),
    }
    total = sums["policy_loss"] - cfg.entropy_coef * sums["entropy"]
    return total, (sums, {"ratio_error": jnp.max(jnp.abs(ratio - 1.0))})


def critic_loss(
    value: Float[Array, "T B N"], batch: Batch, weights: Weights, cfg: PPOConfig
) -> tuple[Float[Array, ""], tuple[Metrics, Metrics]]:
    """Return the value loss times its coefficient, and metrics ``(sums, maxima)``.

    Args:
        value: Values ``[T, B, N]``, in normalized units.
        batch: Minibatch of one device.
        weights: Its weights.
        cfg: Configuration of the kit.

    Returns:
        Part of the loss in the formula of this module, in the form of a ``LossFn``.
    """
    error = value_loss(value, batch.steps.extras.value, batch.target, cfg)
    sums = {"value_loss": weighted_sum(error, weights.value)}
    return cfg.value_coef * sums["value_loss"], (sums, {})


def clipped_loss(
    evaluate: EvaluateFn, cfg: PPOConfig, terms: Sequence[Term] = ()
) -> LossFn:
    """Build the loss in the formula of this module.

    Args:
        evaluate: Log-probability, entropy and value of stored actions, each ``[T, B, N]``.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        Loss of a minibatch, with the metrics that it reports.
    """

    def loss(params: Params, carry: Carry, batch: Batch, weights: Weights) -> Any:
        logp, entropy, value, aux = evaluate(params, carry, batch.steps)  # [T, B, N]
        policy, (sums, maxima) = policy_loss(logp, entropy, batch, weights, cfg)
        critic, (critic_sums, _) = critic_loss(value, batch, weights, cfg)
        total, sums = policy + critic, sums | critic_sums
        total, sums = add_terms(total, sums, terms, params, aux, batch, weights)
        return total, (sums, maxima)

    return loss


Trained = tuple[Params, optax.OptState]
"""Parameters, and the state of their optimizer."""


def gradient_steps(
    loss: LossFn, tx: optax.GradientTransformation, cfg: PPOConfig
) -> Callable[[Trained, Batch, Carry, Key], tuple[Trained, Metrics]]:
    """Build ``epochs`` x ``minibatches`` gradient steps on a loss.

    Args:
        loss: Loss of a minibatch.
        tx: Gradient transformation.
        cfg: Configuration of the kit.

    Returns:
        Function ``(trained, batch, carry, key) -> (trained, metrics)``. Metrics have one number
        for each gradient step, ``[epochs, minibatches]``. The key determines the minibatches.
    """
    loss_gradient = gradient(loss)

    def gradient_step(trained, batch, carry):
        params, opt_state = trained
        grad_out = loss_gradient(params, carry, batch, loss_weights(batch, cfg))
        params, opt_state, metrics = apply_gradients(tx, params, opt_state, grad_out)
        return (params, opt_state), metrics

    def train(trained, batch, carry, key):
        sizes = dict(epochs=cfg.epochs, minibatches=cfg.minibatches)
        return scan_minibatches(gradient_step, trained, key, batch, carry, **sizes)

    return train


def ppo_update(
    evaluate: EvaluateFn,
    value: ValueFn,
    tx: optax.GradientTransformation,
    cfg: PPOConfig,
    terms: Sequence[Term] = (),
) -> UpdateFn:
    """Build the learning phase: returns, then ``epochs`` x ``minibatches`` gradient steps.

    Metrics are means over the gradient steps, with two exceptions:

    * ``ratio_error`` is the largest ``|ratio - 1|`` of the first minibatch. The parameters have
      not changed yet. More than rounding error shows that acting and learning compute different
      policies.
    * ``skipped_steps`` counts the gradient steps of the phase that were skipped because a gradient
      was not finite.

    Args:
        evaluate: Log-probability, entropy and value of stored actions, each ``[T, B, N]``.
        value: Value ``[B, N]`` of the time step after a rollout, in normalized units.
        tx: Gradient transformation.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        Function ``(learner, rollout, key) -> (learner, metrics)``.
    """
    train = gradient_steps(clipped_loss(evaluate, cfg, terms), tx, cfg)

    def update(
        learner: PPOLearner, rollout: Rollout, key: Key
    ) -> tuple[PPOLearner, Metrics]:
        bootstrap = value(learner.params, rollout.last_carry, rollout.last)
        old_stats, params = learner.value_stats, learner.params
        batch, stats, metrics = make_batch(rollout, bootstrap, old_stats, cfg)
        if cfg.popart:
            params, batch = adapt_values(params, batch, old_stats, stats)
        state = params, learner.opt_state
        (params, opt_state), trace = train(state, batch, rollout.carry, key)
        skipped = skipped_steps(opt_state) - skipped_steps(learner.opt_state)
        metrics |= {name: x.mean() for name, x in trace.items()}
        metrics |= {"ratio_error": trace["ratio_error"][0, 0], "skipped_steps": skipped}
        return learner.after(params, opt_state, stats), metrics

    return update


def ppo_optimizer(
    cfg: PPOConfig, num_updates: int, parts: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Build AdamW with gradient clipping.

    Args:
        cfg: Configuration of the kit.
        num_updates: Learning phases of the run, for the schedule of the learning rate.
        parts: Top-level keys of the parameters to clip separately; all together by default.

    Returns:
        Gradient transformation.
    """
    tx = optimizer(cfg, num_updates)
    return by_part(dict.fromkeys(parts, tx)) if parts else tx


class PPOFunctions(NamedTuple):
    """Policy and critic of a PPO system, as functions."""

    init: Callable[[Key], Params]
    """Function ``key -> params``."""
    carry: CarryFn
    """Function ``B -> carry``, the initial memory with leaves ``[B, ...]``."""
    act: ActFn
    """Policy, which returns ``PPOExtras`` and is greedy at ``explore == 0``."""
    evaluate: EvaluateFn
    """Log-probability, entropy and value of stored actions, each ``[T, B, N]``."""
    value: ValueFn
    """Value ``[B, N]`` of the time step after a rollout, in normalized units."""


def ppo_system(
    functions: PPOFunctions,
    tx: optax.GradientTransformation,
    cfg: PPOConfig,
    terms: Sequence[Term] = (),
) -> System:
    """Build a PPO system from functions.

    Args:
        functions: Policy and critic.
        tx: Gradient transformation.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        System whose learner is a ``PPOLearner``.
    """

    def init(key: Key) -> PPOLearner:
        params = functions.init(key)
        return PPOLearner(
            params=params,
            opt_state=tx.init(params),
            value_stats=init_stats(),
            updates=jnp.zeros((), jnp.int32),
        )

    return System(
        init=init,
        carry=functions.carry,
        act=functions.act,
        update=ppo_update(functions.evaluate, functions.value, tx, cfg, terms),
        explore=lambda env_steps: jnp.ones(()),
    )


class ActorCriticCarry(NamedTuple):
    """Memories of a policy and its critic."""

    actor: Carry
    critic: Carry


def actor_critic_system(
    policy: nn.Module,
    critic: nn.Module,
    spec: Spec,
    cfg: PPOConfig,
    num_updates: int,
    added: LossTerms = NO_TERMS,
) -> System:
    """Build a PPO system from separate actor and critic networks.

    Parameters are ``{"actor": ..., "critic": ...}`` and further parts. The gradients of each part
    are clipped separately.

    Args:
        policy: Module ``(carry, obs, first) -> (carry, distribution, aux)`` over rows ``[T, B]``,
            with ``initial(B) -> carry``. ``aux`` is what the terms read.
        critic: Module ``(carry, obs, first) -> (carry, value[T, B, N])``, with
            ``initial(B) -> carry``.
        spec: Description of the environment.
        cfg: Configuration of the kit.
        num_updates: Learning phases of the run.
        added: Terms to add to the loss.

    Returns:
        System whose learner is a ``PPOLearner``.
    """
    functions = actor_critic_functions(policy, critic, spec)
    init_networks = functions.init

    def init(key: Key) -> Params:
        return init_networks(key) | init_parts(added.parts, key)

    functions = functions._replace(init=init)
    tx = ppo_optimizer(cfg, num_updates, ("actor", "critic", *added.parts))
    system = ppo_system(functions, tx, cfg, added.terms)

    def policy_of(params, carry, timestep, key, explore):
        actor, dist, _ = apply_row(policy, params["actor"], carry.actor, timestep)
        return dist, carry._replace(actor=actor)

    return system._replace(policy=policy_of, fault=added.fault)


def actor_critic_functions(
    policy: nn.Module, critic: nn.Module, spec: Spec
) -> PPOFunctions:
    """Return the functions of ``actor_critic_system``; its arguments have the same meaning."""
    networks = {"actor": policy, "critic": critic}

    def init_params(key: Key) -> Params:
        obs = empty_obs(spec, 1, 1)
        first = jnp.ones((1, 1), bool)
        keys = jax.random.split(key)
        return {
            name: network.init(network_key, network.initial(1), obs, first)
            for (name, network), network_key in zip(networks.items(), keys, strict=True)
        }

    def carry(batch: int) -> ActorCriticCarry:
        return ActorCriticCarry(policy.initial(batch), critic.initial(batch))

    def actor_row(params, carry, timestep):
        return apply_row(policy, params["actor"], carry.actor, timestep)

    def critic_row(params, carry, timestep):
        return apply_row(critic, params["critic"], carry.critic, timestep)

    def act(params, carry, timestep, key, explore):
        actor_carry, dist, _ = actor_row(params, carry, timestep)
        critic_carry, value = critic_row(params, carry, timestep)
        action, sample, logp = choose(dist, key, explore)
        extras = PPOExtras(logp=logp, value=value, sample=sample)
        return action, ActorCriticCarry(actor_carry, critic_carry), extras

    def evaluate(params, carry, steps):
        rows = steps.obs, steps.first
        _, dist, aux = _apply(policy, params["actor"], carry.actor, *rows)
        _, value = _apply(critic, params["critic"], carry.critic, *rows)
        logp = dist.log_prob(steps.extras.sample)
        return Evaluation(logp, dist.entropy(), value, aux)

    def value(params, carry, timestep):
        return critic_row(params, carry, timestep)[1]

    return PPOFunctions(init_params, carry, act, evaluate, value)


def _apply(network: nn.Module, params: Params, *args: Any) -> Any:
    return network.apply(params, *args)


def apply_row(
    network: nn.Module, params: Params, carry: Carry, timestep: TimeStep
) -> Any:
    """Apply a network to one time step.

    Args:
        network: Module ``(carry, obs, first) -> (carry, *out)`` over rows ``[T, B]``.
        params: Its parameters.
        carry: Memory before the time step.
        timestep: Time step of B environments.

    Returns:
        The next memory, and the outputs without the axis of time.
    """
    row = add_time_axis((timestep.obs, timestep.first))
    carry, *out = _apply(network, params, carry, *row)
    return carry, *drop_time_axis(out)
