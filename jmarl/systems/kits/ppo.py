"""The PPO kit: one whole on-policy learning phase, as functions of functions.

A system supplies ``act``, ``evaluate`` and ``value``; the kit gives back a ``System``. It is called,
never inherited, and has no flag for any one system: a system with another update writes its own out
of ``learning/``.

    L = - mean_acts min(rho A, clip(rho, 1 - eps, 1 + eps) A) - c_H mean_acts H + c_V mean_valid l(V, G)

with the means over valid rows, and for ``acts`` over the agents alive on them.

Schulman et al. 2017 (arXiv:1707.06347), eq. 7; multi-agent practice of Yu et al. 2022
(arXiv:2103.01955). Differs from the papers: time limits bootstrap from the true final observation; dead
agents are masked from policy and entropy, while their values keep learning from the team's reward;
advantages are normalized once a phase, over what the policy loss sees.
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
from jmarl.learning.minibatch import scan_minibatches
from jmarl.learning.normalizer import (
    ValueStats,
    denormalize,
    init_stats,
    normalize,
    update_stats,
)
from jmarl.learning.optimizers import by_part, optimizer, skipped_steps
from jmarl.learning.parallel import gradient, mean_weights, weighted_sum
from jmarl.learning.returns import lambda_return
from jmarl.networks.flatten import empty_obs
from jmarl.networks.heads import choose
from jmarl.system import ActFn, CarryFn, System, UpdateFn
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


Evaluate = Callable[
    [Params, Carry, Transition],
    tuple[Float[Array, "T B N"], Float[Array, "T B N"], Float[Array, "T B N"]],
]
"""``(params, carry before row 0, steps) -> (log-probability, entropy, value)`` of the stored samples.

The value is the critic's output as it is, in normalized units. ``steps.extras`` holds what ``act`` gave.
"""

Value = Callable[[Params, Carry, TimeStep], Float[Array, "B N"]]
"""``(params, carry, timestep) -> value``, in normalized units, for the bootstrap after the last row."""

Loss = Callable[
    [Params, Carry, "Batch", "Weights"],
    tuple[Float[Array, ""], tuple[Metrics, Metrics]],
]
"""``(params, carry, minibatch, weights) -> (scalar, (sums, maxima))``; a wrap of ``clipped_loss`` may add a term.

Each device calls it with its own environments. The scalars are added, so a mean is a sum with ``weights``, and a term
of the parameters alone goes times ``weights.acts.sum()``; metrics are added, or the largest is taken.
"""


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """What all PPO systems share; a system's ``Config`` extends it. Defaults are in ``configs/system``."""

    lr: float
    anneal_lr: bool
    max_grad_norm: float
    gamma: float
    gae_lambda: float
    clip: float
    epochs: int
    minibatches: int
    entropy_coef: float
    value_coef: float
    value_clip: float
    huber_delta: float
    value_decay: float
    mask_dead_values: bool
    advantage: Literal["per_agent", "joint"]

    def __post_init__(self) -> None:
        """Check every value; a broken rule raises ``ConfigError``."""
        for key in ("gamma", "gae_lambda", "value_decay"):
            check_range(f"system.{key}", getattr(self, key), 0, 1)
        for key in ("lr", "max_grad_norm", "clip"):
            check_positive(f"system.{key}", getattr(self, key))
        for key in ("entropy_coef", "value_coef", "value_clip", "huber_delta"):
            check_range(f"system.{key}", getattr(self, key), 0)
        for key in ("epochs", "minibatches"):
            check_range(f"system.{key}", getattr(self, key), 1)


class Learner(struct.PyTreeNode):
    """Everything that learning changes."""

    params: Params
    opt_state: optax.OptState
    value_stats: ValueStats
    updates: Int[Array, ""]


class PPOExtras(struct.PyTreeNode):
    """What ``act`` stores beside the action; a system that stores more extends it.

    ``sample`` is the draw as ``networks.heads`` keeps it: the action itself, or the vector before
    the tanh. ``value`` is in normalized units.
    """

    logp: Float[Array, "*batch N"]
    value: Float[Array, "*batch N"]
    sample: Shaped[Array, "*batch N ..."]


class Batch(struct.PyTreeNode):
    """The experience of one phase, or a minibatch of it: leaves ``[T, B, ...]``."""

    steps: Transition
    advantage: Float[Array, "T B N"]
    """Normalized, where ``acts``."""
    target: Float[Array, "T B N"]
    """Of the values, in normalized units."""

    @property
    def acts(self) -> Bool[Array, "T B N"]:
        """The action counted and the agent was alive to take it."""
        return self.steps.valid[..., None] & self.steps.obs.alive


class Weights(NamedTuple):
    """What a minibatch's means weigh its rows with; each adds up to 1 over the whole minibatch, or is zero."""

    acts: Float[Array, "T B N"]
    values: Float[Array, "T B N"]


def weigh(batch: Batch, cfg: PPOConfig) -> Weights:
    """The weights of one minibatch, from all of its environments."""
    return Weights(
        mean_weights(batch.acts), mean_weights(_value_mask(batch.steps, cfg))
    )


def masked_mean(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of ``x`` where ``mask``; 0 if nowhere. What is masked may be anything, NaN included."""
    return weighted_sum(x, mean_weights(mask))


def masked_variance(
    x: Float[Array, "..."], mask: Bool[Array, "..."]
) -> Float[Array, ""]:
    """Variance of ``x`` where ``mask``; 0 if nowhere."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def _value_mask(steps: Transition, cfg: PPOConfig) -> Bool[Array, "T B N"]:
    return steps.valid[..., None] & (
        steps.obs.alive if cfg.mask_dead_values else steps.obs.present
    )


def _of_team(obs: EntityObs, x: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    return jnp.broadcast_to(obs.team_mean(x)[..., None], x.shape)


def returns(
    rollout: Rollout, value: Float[Array, "T+1 B N"], cfg: PPOConfig
) -> tuple[Float[Array, "T B N"], Float[Array, "T B N"]]:
    """Advantages and value targets, both in units of reward.

    ``joint`` has one critic's worth of both for the team: the mean over its agents of the values and
    of the rewards, which is the advantage that the decomposition behind sequence policies is stated for.
    """
    steps = rollout.steps
    reward = steps.reward
    if cfg.advantage == "joint":
        reward = _of_team(steps.obs, reward)
        value = jnp.concatenate(
            [
                _of_team(steps.obs, value[:-1]),
                _of_team(rollout.last.obs, value[-1])[None],
            ]
        )
    valid = jnp.concatenate([steps.valid, rollout.last.valid[None]])
    target = lambda_return(
        reward, steps.terminated, valid, value, gamma=cfg.gamma, lam=cfg.gae_lambda
    )
    return target - value[:-1], target


def make_batch(
    rollout: Rollout, bootstrap: Float[Array, "B N"], stats: ValueStats, cfg: PPOConfig
) -> tuple[Batch, ValueStats, Metrics]:
    """Returns of a rollout, with the value statistics that take them in.

    ``bootstrap`` is the critic's output after the last row. The rollout's values were put out under the
    old statistics and are read with them; the targets are written with the new ones.
    """
    steps = rollout.steps
    value = denormalize(stats, jnp.concatenate([steps.extras.value, bootstrap[None]]))
    advantage, target = returns(rollout, value, cfg)
    counts = _value_mask(steps, cfg)
    stats = update_stats(stats, target, counts, decay=cfg.value_decay)
    batch = Batch(steps=steps, advantage=advantage, target=normalize(stats, target))
    centered = advantage - masked_mean(advantage, batch.acts)
    scale = jnp.sqrt(masked_variance(advantage, batch.acts)) + 1e-5
    unexplained = masked_variance(target - value[:-1], counts)
    metrics = {
        "value_mean": masked_mean(value[:-1], counts),
        "explained_variance": 1.0
        - unexplained / (masked_variance(target, counts) + 1e-8),
    }
    return batch.replace(advantage=centered / scale), stats, metrics


def value_loss(
    value: Float[Array, "..."],
    old: Float[Array, "..."],
    target: Float[Array, "..."],
    cfg: PPOConfig,
) -> Float[Array, "..."]:
    """Huber (or half-square, for ``huber_delta=0``) error; the worse of it and that of the clipped value."""

    def distance(v):
        return (
            optax.huber_loss(v, target, delta=cfg.huber_delta)
            if cfg.huber_delta
            else 0.5 * (v - target) ** 2
        )

    if not cfg.value_clip:
        return distance(value)
    near = old + jnp.clip(value - old, -cfg.value_clip, cfg.value_clip)
    return jnp.maximum(distance(value), distance(near))


def clipped_loss(evaluate: Evaluate, cfg: PPOConfig) -> Loss:
    """The loss of the module's formula, for the policy and critic behind ``evaluate``."""

    def loss(params: Params, carry: Carry, batch: Batch, weights: Weights) -> Any:
        steps, acts = batch.steps, batch.acts
        logp, entropy, value = evaluate(params, carry, steps)
        log_ratio = jnp.where(acts, logp - steps.extras.logp, 0.0)
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1.0 - cfg.clip, 1.0 + cfg.clip)
        gain = jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)
        error = value_loss(value, steps.extras.value, batch.target, cfg)
        metrics = {
            "policy_loss": -weighted_sum(gain, weights.acts),
            "value_loss": weighted_sum(error, weights.values),
            "entropy": weighted_sum(entropy, weights.acts),
            "approx_kl": weighted_sum(ratio - 1.0 - log_ratio, weights.acts),
            "clip_fraction": weighted_sum(
                (jnp.abs(ratio - 1.0) > cfg.clip).astype(jnp.float32), weights.acts
            ),
        }
        total = (
            metrics["policy_loss"]
            - cfg.entropy_coef * metrics["entropy"]
            + cfg.value_coef * metrics["value_loss"]
        )
        return total, (metrics, {"ratio_error": jnp.max(jnp.abs(ratio - 1.0))})

    return loss


def ppo_update(
    evaluate: Evaluate,
    value: Value,
    tx: optax.GradientTransformation,
    cfg: PPOConfig,
    loss: Loss | None = None,
) -> UpdateFn:
    """A learning phase: returns, then ``epochs`` x ``minibatches`` gradient steps.

    Metrics are means over the gradient steps, except ``ratio_error``, the largest ``|ratio - 1|`` of
    the first minibatch: the parameters have not changed there, so anything but rounding says that
    acting and learning disagree about the policy; and ``skipped_steps``, the gradient steps of this phase
    that were skipped because a gradient was not finite.
    """
    loss = loss or clipped_loss(evaluate, cfg)
    gradient_of = gradient(loss)

    def descend(state, batch, carry):
        params, opt_state = state
        total, (sums, maxima), grads = gradient_of(
            params, carry, batch, weigh(batch, cfg)
        )
        metrics = jax.tree.map(jnp.sum, sums) | jax.tree.map(jnp.max, maxima)
        updates, opt_state = tx.update(grads, opt_state, params)
        metrics = metrics | {"loss": total, "grad_norm": optax.global_norm(grads)}
        return (optax.apply_updates(params, updates), opt_state), metrics

    def update(learner: Learner, rollout: Rollout, key: Key) -> tuple[Learner, Metrics]:
        bootstrap = value(learner.params, rollout.last_carry, rollout.last)
        batch, stats, metrics = make_batch(rollout, bootstrap, learner.value_stats, cfg)
        (params, opt_state), trace = scan_minibatches(
            descend,
            (learner.params, learner.opt_state),
            key,
            batch,
            rollout.carry,
            epochs=cfg.epochs,
            minibatches=cfg.minibatches,
        )
        metrics |= {name: x.mean() for name, x in trace.items()}
        skipped = skipped_steps(opt_state) - skipped_steps(learner.opt_state)
        metrics |= {"ratio_error": trace["ratio_error"][0, 0], "skipped_steps": skipped}
        after = Learner(
            params=params,
            opt_state=opt_state,
            value_stats=stats,
            updates=learner.updates + 1,
        )
        return after, metrics

    return update


def ppo_optimizer(
    cfg: PPOConfig, num_updates: int, parts: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Adam for a run of ``num_updates`` phases; ``parts`` names top-level parameters to clip separately."""
    tx = optimizer(
        cfg.lr,
        cfg.max_grad_norm,
        anneal=cfg.anneal_lr,
        steps_per_update=cfg.epochs * cfg.minibatches,
        num_updates=num_updates,
    )
    return by_part(tx, parts) if parts else tx


def ppo_system(  # noqa: PLR0913 - the parts of a system, in order
    init_params: Callable[[Key], Params],
    carry: CarryFn,
    act: ActFn,
    evaluate: Evaluate,
    value: Value,
    tx: optax.GradientTransformation,
    cfg: PPOConfig,
    *,
    loss: Loss | None = None,
) -> System:
    """Assemble a system; ``act`` gives ``PPOExtras``, greedy at ``explore == 0``."""

    def init(key: Key) -> Learner:
        params = init_params(key)
        return Learner(
            params=params,
            opt_state=tx.init(params),
            value_stats=init_stats(),
            updates=jnp.zeros((), jnp.int32),
        )

    return System(
        init=init,
        carry=carry,
        act=act,
        update=ppo_update(evaluate, value, tx, cfg, loss),
        explore=lambda env_steps: jnp.ones(()),
    )


class ActorCriticCarry(NamedTuple):
    """The two memories of a policy and its critic."""

    actor: Carry
    critic: Carry


def actor_critic_system(
    policy: nn.Module,
    critic: nn.Module,
    spec: Spec,
    cfg: PPOConfig,
    num_updates: int,
    *,
    loss: Loss | None = None,
) -> System:
    """PPO with separate actor and critic: a system that changes networks alone is a call of this.

    ``policy(carry, obs, first) -> (carry, ActionDist)`` and ``critic(carry, obs, first) -> (carry, value[T,B,N])``,
    each with ``initial(B) -> carry``. Parameters are ``{"actor": .., "critic": ..}``, clipped separately.
    """

    def init_params(key: Key) -> Params:
        obs, first = empty_obs(spec, 1, 1), jnp.ones((1, 1), bool)
        nets = {"actor": policy, "critic": critic}
        keys = dict(zip(nets, jax.random.split(key), strict=True))
        return {
            name: net.init(keys[name], net.initial(1), obs, first)
            for name, net in nets.items()
        }

    def carry(batch: int) -> ActorCriticCarry:
        return ActorCriticCarry(policy.initial(batch), critic.initial(batch))

    def act(params, carry, timestep, key, explore):
        actor_carry, dist = _one_row(policy, params["actor"], carry.actor, timestep)
        critic_carry, value = _one_row(critic, params["critic"], carry.critic, timestep)
        action, sample, logp = choose(dist, key, explore)
        return (
            action,
            ActorCriticCarry(actor_carry, critic_carry),
            PPOExtras(logp=logp, value=value, sample=sample),
        )

    def evaluate(params, carry, steps):
        _, dist = _forward(policy, params["actor"], carry.actor, steps.obs, steps.first)
        _, value = _forward(
            critic, params["critic"], carry.critic, steps.obs, steps.first
        )
        return dist.log_prob(steps.extras.sample), dist.entropy(), value

    return ppo_system(
        init_params,
        carry,
        act,
        evaluate,
        lambda params, carry, timestep: _one_row(
            critic, params["critic"], carry.critic, timestep
        )[1],
        ppo_optimizer(cfg, num_updates, ("actor", "critic")),
        cfg,
        loss=loss,
    )


def _forward(
    net: nn.Module,
    params: Params,
    carry: Carry,
    obs: EntityObs,
    first: Bool[Array, "T B"],
) -> Any:
    return net.apply(params, carry, obs, first)


def _one_row(net: nn.Module, params: Params, carry: Carry, timestep: TimeStep) -> Any:
    row = jax.tree.map(lambda x: x[None], (timestep.obs, timestep.first))
    carry, out = _forward(net, params, carry, *row)
    return carry, jax.tree.map(lambda x: x[0], out)
