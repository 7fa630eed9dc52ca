"""HAPPO: policies with separate parameters, updated sequentially (arXiv:2109.11251).

    L_i = - mean_i min(rho_i M A, clip(rho_i, 1-eps, 1+eps) M A) - c_H mean_i H_i
    M  <- M pi_i(a_i | o_i) / pi_i_old(a_i | o_i)

Agents take turns in a random order, drawn for each learning phase. M starts at 1. ``mean_i`` runs
over the rows in which agent i is alive. M is a nonnegative constant in the loss, which is therefore
PPO's clipped loss with the advantage M A. After the last agent, the central critic is updated as in
MAPPO. ``critic_input`` has the same options.

An agent that is dead or absent in a row leaves M unchanged in that row. An agent without a living
row keeps its parameters and its optimizer state.

After Kuba et al. 2022, with implementation details of Zhong et al. 2024 (HARL, arXiv:2304.09870).

Differs from the papers:

* M is a product of ratios to the probabilities stored in the rollout. An agent's parameters do not
  change before its turn, so these need not be recomputed.
* log M is clipped to ``MAX_LOG_RATIO``, which keeps M finite in float32.
* All agents and the critic learn from the same minibatches of environments.
* Actors and critic share one learning rate and one number of epochs.
* With ``advantage: joint``, advantages are normalized for each agent over its own rows, as HARL
  does for a critic with one value. With ``per_agent`` they are normalized over all agents.
* Memory is trained over the whole rollout, and time limits bootstrap (see
  ``systems/kits/ppo.py``).
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("happo")

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import RunConfig
from jmarl.learning.normalizer import ValueStats
from jmarl.learning.optimizers import optimizer, skipped_steps
from jmarl.learning.parallel import map_devices, mean_weights, weighted_sum
from jmarl.networks.actor_critic import Policy
from jmarl.networks.agents import AgentConfig as Network
from jmarl.networks.agents import make_agent
from jmarl.networks.entity_critic import CriticInput, make_critic
from jmarl.networks.separate_policies import SeparatePolicies, policy_params
from jmarl.system import Learner, System, UpdateFn
from jmarl.systems.kits.ppo import (
    MAX_LOG_RATIO,
    Batch,
    PPOConfig,
    PPOLearner,
    Trained,
    Weights,
    actor_critic_system,
    adapt_values,
    apply_row,
    critic_loss,
    gradient_steps,
    make_raw_batch,
    normalize_advantage,
    policy_loss,
)
from jmarl.types import Carry, Key, Metrics, Params, Rollout, Spec


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(PPOConfig):
    """Configuration of the PPO kit, the input of the critic, and the order of the agents."""

    critic_input: CriticInput
    fixed_order: bool

    @property
    def separate_agents(self) -> bool:
        """True: each agent has its own parameters."""
        return True


class Turns(NamedTuple):
    """Results of the turns of all agents, in the order of the turns."""

    compound_ratio: Float[Array, "N T B"]
    """The ratio M that multiplied the agent's advantages."""
    active: Bool[Array, " N"]
    """False for agents without a living row."""
    trace: Metrics
    """Metrics of the gradient steps, ``[N, epochs, minibatches]``."""


Turn = Callable[[Trained, Batch, Carry], tuple[Trained, Float[Array, "T B"], Metrics]]
"""Learning phase ``(trained, batch, carry) -> (trained, log_ratio, trace)`` of one agent.

``log_ratio`` compares the new policy with the old one; it is 0 where the agent is not alive.
"""


def take_turns(
    turn: Turn, actors: Trained, batch: Batch, carry: Carry, order: Int[Array, " N"]
) -> tuple[Trained, Turns]:
    """Update one agent after the other.

    Args:
        turn: Learning phase of one agent.
        actors: Parameters and optimizer states, stacked over agents.
        batch: Experience of all agents, with leaves ``[T, B, N, ...]``.
        carry: Memories of all actors before row 0, with leaves ``[B, N, ...]``.
        order: Agents in the order of their turns.

    Returns:
        Updated parameters and optimizer states, and the results of the turns.
    """

    def visit(state: Any, i: Int[Array, ""]) -> Any:
        actors, log_compound = state
        compound_ratio = jnp.exp(jnp.clip(log_compound, -MAX_LOG_RATIO, MAX_LOG_RATIO))
        mine = agent_batch(batch, i, compound_ratio)
        active = mine.policy_mask.any()
        before = _entry(actors, i, 0)
        after, log_ratio, trace = turn(before, mine, _entry(carry, i, 1))
        kept = jax.tree.map(lambda a, b: jnp.where(active, a, b), after, before)
        actors = jax.tree.map(lambda x, new: x.at[i].set(new), actors, kept)
        state = actors, log_compound + log_ratio
        return state, Turns(compound_ratio, active, trace)

    start = actors, jnp.zeros(batch.steps.valid.shape)
    (actors, _), turns = jax.lax.scan(visit, start, order)
    return actors, turns


def _entry(tree: Any, i: Int[Array, ""], axis: int) -> Any:
    """Return entry i of an axis of every leaf, without the axis."""

    def select(x: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False)

    return jax.tree.map(select, tree)


def agent_batch(
    batch: Batch, i: Int[Array, ""] | int, compound_ratio: Float[Array, "T B"]
) -> Batch:
    """Return the experience of one agent, with the advantage M A.

    Args:
        batch: Experience of N agents, with leaves ``[T, B, N, ...]``.
        i: Index of the agent; it may be traced.
        compound_ratio: The ratio M of the agents before it ``[T, B]``.

    Returns:
        Experience with leaves ``[T, B, 1, ...]``.
    """

    def select(x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, i, 1, 2)

    steps = batch.steps.replace(
        obs=batch.steps.obs.agent(i),
        action=select(batch.steps.action),
        reward=select(batch.steps.reward),
        extras=jax.tree.map(select, batch.steps.extras),
    )
    advantage = select(batch.advantage) * compound_ratio[..., None]
    return Batch(steps, advantage, select(batch.target))


def make_turn(
    policy: Policy, tx: optax.GradientTransformation, cfg: Config, key: Key
) -> Turn:
    """Build the learning phase of one agent: the gradient steps of PPO, then the new ratio.

    Args:
        policy: Policy of a team of one.
        tx: Gradient transformation.
        cfg: Configuration of the system.
        key: Random key of the minibatches.

    Returns:
        Function of the agent's parameters, experience and memory.
    """

    def evaluate(params: Params, carry: Carry, batch: Batch) -> Any:
        rows = batch.steps.obs, batch.steps.first
        _, dist, _ = _apply(policy, policy_params(params), carry, *rows)
        return dist.log_prob(batch.steps.extras.sample), dist.entropy()

    def loss(params: Params, carry: Carry, batch: Batch, weights: Weights) -> Any:
        logp, entropy = evaluate(params, carry, batch)
        return policy_loss(logp, entropy, batch, weights, cfg)

    train = gradient_steps(loss, tx, cfg)

    def turn(trained: Trained, batch: Batch, carry: Carry) -> Any:
        trained, trace = train(trained, batch, carry, key)
        logp, _ = map_devices(evaluate)(trained[0], carry, batch)
        log_ratio = jnp.where(batch.policy_mask, logp - batch.steps.extras.logp, 0.0)
        return trained, log_ratio[..., 0], trace

    return turn


def critic_steps(
    critic: nn.Module, tx: optax.GradientTransformation, cfg: Config
) -> Callable[[Trained, Batch, Carry, Key], tuple[Trained, Metrics]]:
    """Build the gradient steps of the critic (see ``gradient_steps``)."""

    def loss(params: Params, carry: Carry, batch: Batch, weights: Weights) -> Any:
        _, value = _apply(critic, params, carry, batch.steps.obs, batch.steps.first)
        return critic_loss(value, batch, weights, cfg)

    return gradient_steps(loss, tx, cfg)


def _apply(network: nn.Module, params: Params, *args: Any) -> Any:
    return network.apply(params, *args)


def happo_update(
    policy: Policy, critic: nn.Module, tx: optax.GradientTransformation, cfg: Config
) -> UpdateFn:
    """Build the learning phase: the turns of all agents, then the critic.

    Args:
        policy: Policy of a team of one.
        critic: Central critic.
        tx: Gradient transformation of one agent, and of the critic.
        cfg: Configuration of the system.

    Returns:
        Function ``(learner, rollout, key) -> (learner, metrics)``.
    """
    train_critic = critic_steps(critic, tx, cfg)

    def update(
        learner: PPOLearner, rollout: Rollout, key: Key
    ) -> tuple[PPOLearner, Metrics]:
        values, batch, stats, metrics = start_phase(critic, learner, rollout, cfg)
        carry, opt_state = rollout.carry, learner.opt_state
        actors = learner.params["actor"], opt_state["actor"]
        turn = make_turn(policy, tx, cfg, key)
        order = draw_order(key, batch.advantage.shape[-1], cfg)
        actors, turns = take_turns(turn, actors, batch, carry.actor, order)
        values = values, opt_state["critic"]
        values, trace = train_critic(values, batch, carry.critic, key)
        params, opt_state = (
            {"actor": actor, "critic": value}
            for actor, value in zip(actors, values, strict=True)
        )
        skipped = skipped_steps(opt_state) - skipped_steps(learner.opt_state)
        metrics |= phase_metrics(turns, trace) | {"skipped_steps": skipped}
        return learner.after(params, opt_state, stats), metrics

    return update


def start_phase(
    critic: nn.Module, learner: PPOLearner, rollout: Rollout, cfg: Config
) -> tuple[Params, Batch, ValueStats, Metrics]:
    """Return the critic's parameters and the batch, in units of the new value statistics."""
    params, old_stats = learner.params["critic"], learner.value_stats
    _, bootstrap = apply_row(critic, params, rollout.last_carry.critic, rollout.last)
    batch, stats, metrics = make_raw_batch(rollout, bootstrap, old_stats, cfg)
    batch = batch.replace(advantage=normalized_advantage(batch, cfg))
    if cfg.popart:
        params, batch = adapt_values(params, batch, old_stats, stats)
    return params, batch, stats, metrics


def normalized_advantage(batch: Batch, cfg: Config) -> Float[Array, "T B N"]:
    """Return normalized advantages; joint ones are normalized over the rows of each agent."""
    if cfg.advantage == "joint":
        by_agent = jax.vmap(normalize_advantage, in_axes=-1, out_axes=-1)
        return by_agent(batch.advantage, batch.policy_mask)
    return normalize_advantage(batch.advantage, batch.policy_mask)


def draw_order(key: Key, n_agents: int, cfg: Config) -> Int[Array, " N"]:
    """Draw the order of the turns, from a key other than those of the epochs."""
    if cfg.fixed_order:
        return jnp.arange(n_agents)
    return jax.random.permutation(jax.random.fold_in(key, cfg.epochs), n_agents)


def phase_metrics(turns: Turns, critic_trace: Metrics) -> Metrics:
    """Return the metrics of the PPO kit, as means over gradient steps and active agents.

    ``loss`` is the mean loss of the actors plus the critic's. ``grad_norm`` is the norm of the
    gradients of all actors and the critic.
    """

    def mean(x: Float[Array, "N epochs minibatches"]) -> Float[Array, ""]:
        return weighted_sum(x.mean((1, 2)), mean_weights(turns.active))

    trace = turns.trace
    metrics = {name: mean(x) for name, x in trace.items()}
    actor_squares = (trace["grad_norm"] ** 2).sum(0)
    norms = jnp.sqrt(actor_squares + critic_trace["grad_norm"] ** 2)
    return metrics | {
        "loss": metrics["loss"] + critic_trace["loss"].mean(),
        "value_loss": critic_trace["value_loss"].mean(),
        "grad_norm": norms.mean(),
        "ratio_error": trace["ratio_error"][:, 0, 0].max(),
    }


def make(spec: Spec, config: RunConfig) -> System:
    """Build HAPPO for an environment."""
    cfg = config.system
    agent = make_agent(spec._replace(n_agents=1), config.network)
    policy = Policy(agent, spec.discrete)
    actors = SeparatePolicies(policy, spec.n_agents)
    critic = make_critic(spec, config.network, cfg.critic_input)
    system = actor_critic_system(actors, critic, spec, cfg, config.num_updates)
    tx = optimizer(cfg, config.num_updates)

    def init(key: Key) -> Learner:
        learner = system.init(key)
        actor, value = learner.params["actor"], learner.params["critic"]
        opt_state = {"actor": jax.vmap(tx.init)(actor), "critic": tx.init(value)}
        return learner.replace(opt_state=opt_state)

    return system._replace(init=init, update=happo_update(policy, critic, tx, cfg))
