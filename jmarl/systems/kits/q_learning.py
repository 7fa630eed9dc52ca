"""Q-learning kit: build a value-decomposition system from an agent network and a mixer.

    L = mean_valid 1/2 (Q_tot(s, u) - G)^2,    Q_tot = mixer(Q_1, ..., Q_N, s)

With replay (VDN, QMIX, QPLEX), G is the TD(lambda) or Q(lambda) return of a target network, at
actions that the online network selects. Without replay (PQN), G is the lambda-return of the
network's own greedy values. A system can add terms of its own to the loss.

A system calls the kit, which returns a ``System``. Systems do not inherit from the kit. Every
option of the kit is of use to several systems.

Sunehag et al. 2018 (arXiv:1706.05296), Rashid et al. 2018 (arXiv:1803.11485), van Hasselt et al.
2016 (arXiv:1509.06461), Gallici et al. 2024 (arXiv:2407.04811).

Differs from the papers:

* The team's reward is the mean over its agents. The reported return uses the same mean.
* A time limit bootstraps from the true final observation. Traces end there, as at a termination.
* Sequences are whole rollouts. They may cross episodes, and memory is reset between episodes.
* Rows of the burn-in have no loss, but gradients of later rows flow through them. R2D2
  (Kapturowski et al. 2019) stops these gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import ConfigError, RunConfig, check
from jmarl.learning.exploration import epsilon_greedy, greedy, linear_decay
from jmarl.learning.minibatch import scan_minibatches
from jmarl.learning.optimizers import apply_gradients, optimizer, skipped_steps
from jmarl.learning.parallel import add_terms, gradient, mean_weights, weighted_sum
from jmarl.learning.replay import empty_replay, insert, sample
from jmarl.learning.returns import lambda_return
from jmarl.networks.agents import make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import make_mixer
from jmarl.networks.rows import add_time_axis, drop_time_axis
from jmarl.system import (
    NO_PARTS,
    NO_TERMS,
    InitPart,
    Learner,
    LossTerms,
    System,
    UpdateFn,
    init_parts,
)
from jmarl.systems.kits.q_learning_config import PQNConfig, ReplayConfig, ValueConfig
from jmarl.types import Carry, EntityObs, Key, Metrics, Params, Rollout, Spec, TimeStep


class Steps(struct.PyTreeNode):
    """Rows of sequences. The action and reward of the last row are not used."""

    obs: EntityObs
    first: Bool[Array, "T+1 B"]
    valid: Bool[Array, "T+1 B"]
    action: Int[Array, "T+1 B N"]
    reward: Float[Array, "T+1 B"]
    """Reward of the team, the mean over its agents."""
    terminated: Bool[Array, "T+1 B"]


class ValueExtras(struct.PyTreeNode):
    """Outputs of ``act`` that are stored with the action."""

    epsilon: Float[Array, "*batch"]


class PQNLearner(Learner):
    """State of Q-learning: parameters, optimizer, and a counter."""

    updates: Int[Array, ""]


class ReplayLearner(PQNLearner):
    """State of Q-learning from a replay buffer. ``updates`` counts the chunks inserted."""


class QNetwork(NamedTuple):
    """Agent network and mixer, as functions of ``params = {"agent": ..., "mixer": ...}``."""

    agent: nn.Module
    """Module ``(carry, obs, first) -> (carry, q[T, B, N, A], aux)`` with ``initial(B) -> carry``.

    ``aux`` is what additional terms of the loss read.
    """
    mixer: nn.Module
    """Module ``(q[T, B, N, A], action[T, B, N], obs) -> q_tot[T, B]``."""
    spec: Spec
    parts: Mapping[str, InitPart] = NO_PARTS
    """Functions that initialize parts of the parameters that only terms of the loss read."""

    def init(self, key: Key) -> Params:
        """Return the initial parameters of agent network, mixer and further parts."""
        agent_key, mixer_key = jax.random.split(key)
        obs = empty_obs(self.spec, 1, 1)
        first = jnp.ones((1, 1), bool)
        q = jnp.zeros(obs.avail.shape)
        action = jnp.zeros(obs.alive.shape, jnp.int32)
        return {
            "agent": self.agent.init(agent_key, self.agent.initial(1), obs, first),
            "mixer": self.mixer.init(mixer_key, q, action, obs),
            **init_parts(self.parts, key),
        }

    def step(
        self, params: Params, carry: Carry, timestep: TimeStep
    ) -> tuple[Carry, Float[Array, "B N A"]]:
        """Return memory and action values after one time step."""
        row = add_time_axis((timestep.obs, timestep.first))
        carry, q, _ = _apply(self.agent, params["agent"], carry, *row)
        return carry, drop_time_axis(q)

    def unroll(
        self, params: Params, carry: Carry, steps: Steps
    ) -> tuple[Float[Array, "T+1 B N A"], Any]:
        """Return action values and ``aux`` of every row; ``carry`` is the memory before row 0."""
        inputs = carry, steps.obs, steps.first
        _, q, aux = _apply(self.agent, params["agent"], *inputs)
        return q, aux

    def mix(
        self,
        params: Params,
        q: Float[Array, "T+1 B N A"],
        action: Int[Array, "T+1 B N"],
        steps: Steps,
    ) -> Float[Array, "T+1 B"]:
        """Return the team's value of a joint action."""
        return _apply(self.mixer, params["mixer"], q, action, steps.obs)


def _apply(module: nn.Module, params: Params, *args: Any) -> Any:
    return module.apply(params, *args)


def steps_of(rollout: Rollout, cfg: ValueConfig) -> Steps:
    """Return the rows of a rollout, with the time step after them as the last row.

    Args:
        rollout: Experience of T rows.
        cfg: Configuration of the kit, for the scale of rewards.

    Returns:
        Rows with leaves ``[T + 1, B, ...]``.
    """
    rows, last = rollout.steps, rollout.last
    steps = Steps(
        obs=rows.obs,
        first=rows.first,
        valid=rows.valid,
        action=rows.action,
        reward=rows.obs.team_mean(rows.reward) * cfg.reward_scale,
        terminated=rows.terminated,
    )
    last_row = Steps(
        obs=last.obs,
        first=last.first,
        valid=last.valid,
        action=jnp.zeros_like(rows.action[0]),
        reward=jnp.zeros_like(steps.reward[0]),
        terminated=jnp.zeros_like(rows.terminated[0]),
    )
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), steps, last_row)


def td_lambda(
    steps: Steps, value: Float[Array, "T+1 B"], cfg: ValueConfig
) -> Float[Array, "T B"]:
    """Compute TD(lambda) targets. Traces end with episodes.

        G_t = r_t + gamma (1 - terminated_t) ((1 - lambda) V_{t+1} + lambda G_{t+1})

    Args:
        steps: Rows of sequences.
        value: Greedy values of the team ``[T + 1, B]``.
        cfg: Configuration of the kit.

    Returns:
        Targets ``[T, B]``.
    """
    return lambda_return(
        steps.reward[:-1],
        steps.terminated[:-1],
        steps.valid,
        value,
        gamma=cfg.gamma,
        lam=cfg.td_lambda,
    )


def q_lambda(
    steps: Steps,
    value: Float[Array, "T+1 B"],
    q_taken: Float[Array, "T+1 B"],
    cfg: ValueConfig,
) -> Float[Array, "T B"]:
    """Compute Q(lambda) targets, which correct for actions that were not greedy.

        G_t - Q_t = delta_t + gamma lambda (G_{t+1} - Q_{t+1})
        delta_t = r_t + gamma V_{t+1} - Q_t

    Harutyunyan et al. 2016 (arXiv:1602.04951), for the greedy policy. The target is the TD(lambda)
    return with rewards ``r_t + V_t - Q_t``, minus ``V_t - Q_t``.

    Differs from PyMARL2, which does not subtract the last term. Its target exceeds the one-step
    target by the gap ``V_t - Q_t`` even at lambda 0.

    Args:
        steps: Rows of sequences.
        value: Greedy values of the team ``[T + 1, B]``.
        q_taken: Values of the actions taken ``[T + 1, B]``.
        cfg: Configuration of the kit.

    Returns:
        Targets ``[T, B]``.
    """
    gap = (value - q_taken)[:-1]
    corrected = steps.replace(reward=steps.reward.at[:-1].add(gap))
    return td_lambda(corrected, value, cfg) - gap


Aux = tuple[Metrics, Metrics]
"""Metrics that are summed over devices, and metrics that are maxima over devices."""


def squared_error(
    q_taken: Float[Array, "T B"],
    target: Float[Array, "T B"],
    weight: Float[Array, "T B"],
) -> tuple[Float[Array, ""], Aux]:
    """Return half the mean squared error.

    Args:
        q_taken: Values of the actions taken ``[T, B]``.
        target: Targets ``[T, B]``; no gradient flows through them.
        weight: Weights ``[T, B]`` that add up to 1 over all devices.

    Returns:
        Loss and metrics.
    """
    error = jnp.where(weight > 0, q_taken - jax.lax.stop_gradient(target), 0.0)
    loss = weighted_sum(0.5 * error**2, weight)
    sums = {
        "q_mean": weighted_sum(q_taken, weight),
        "target_mean": weighted_sum(target, weight),
    }
    return loss, (sums, {"error_max": jnp.abs(error).max()})


Term = Callable[
    [Params, Any, Steps, Float[Array, "T B"]], tuple[Float[Array, ""], Metrics]
]
"""Additional term ``(params, aux, steps, weight) -> (scalar, sums)`` of the loss.

``aux`` is that of ``QNetwork.unroll``, with T + 1 rows like ``steps``. The results are added over
devices. A term sees the environments of one device only: it takes means over agents within a row,
and means over the first T rows with ``weight``.
"""


def double_q_loss(
    net: QNetwork, cfg: ReplayConfig, terms: Sequence[Term] = ()
) -> Callable[..., tuple[Float[Array, ""], Aux]]:
    """Build the loss with targets from the target network, at the online network's greedy actions.

    Args:
        net: Agent network and mixer.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        Function ``(params, target_params, carry, steps, weight) -> (scalar, aux)``. Both networks
        unroll from the same stored memory ``carry``.
    """

    def loss(
        params: Params,
        target_params: Params,
        carry: Carry,
        steps: Steps,
        weight: Float[Array, "T B"],
    ) -> Any:
        steps = decompress(steps, net.spec)
        q, aux = net.unroll(params, carry, steps)  # [T+1, B, N, A]
        target_q, _ = net.unroll(target_params, carry, steps)
        greedy_action = greedy(q, steps.obs.avail)
        value = net.mix(target_params, target_q, greedy_action, steps)  # [T+1, B]
        if cfg.returns == "td_lambda":
            td_target = td_lambda(steps, value, cfg)
        else:
            target_q_taken = net.mix(target_params, target_q, steps.action, steps)
            td_target = q_lambda(steps, value, target_q_taken, cfg)
        q_taken = net.mix(params, q, steps.action, steps)
        total, (sums, maxima) = squared_error(q_taken[:-1], td_target, weight)
        total, sums = add_terms(total, sums, terms, params, aux, steps, weight)
        return total, (sums, maxima)

    return loss


def pqn_loss(
    net: QNetwork, cfg: PQNConfig, terms: Sequence[Term] = ()
) -> Callable[..., tuple[Float[Array, ""], Aux]]:
    """Build the loss without a target network (Gallici et al. 2024).

    Returns are recomputed in each gradient step, from the parameters of that step.

    Args:
        net: Agent network and mixer.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        Function ``(params, carry, steps, weight) -> (scalar, aux)``.
    """

    def loss(
        params: Params, carry: Carry, steps: Steps, weight: Float[Array, "T B"]
    ) -> Any:
        q, aux = net.unroll(params, carry, steps)  # [T+1, B, N, A]
        value = net.mix(params, q, greedy(q, steps.obs.avail), steps)  # [T+1, B]
        q_taken = net.mix(params, q, steps.action, steps)
        target = td_lambda(steps, value, cfg)
        total, (sums, maxima) = squared_error(q_taken[:-1], target, weight)
        total, sums = add_terms(total, sums, terms, params, aux, steps, weight)
        return total, (sums, maxima)

    return loss


def pqn_update(
    net: QNetwork,
    tx: optax.GradientTransformation,
    cfg: PQNConfig,
    terms: Sequence[Term] = (),
) -> UpdateFn:
    """Build the learning phase without replay: ``epochs`` x ``minibatches`` gradient steps.

    Args:
        net: Agent network and mixer.
        tx: Gradient transformation.
        cfg: Configuration of the kit.
        terms: Terms to add to the loss.

    Returns:
        Function ``(learner, rollout, key) -> (learner, metrics)``.
    """
    loss_gradient = gradient(pqn_loss(net, cfg, terms))

    def gradient_step(state: Any, steps: Steps, carry: Carry) -> Any:
        params, opt_state = state
        weight = mean_weights(steps.valid[:-1])
        grad_out = loss_gradient(params, carry, steps, weight)
        params, opt_state, metrics = apply_gradients(tx, params, opt_state, grad_out)
        return (params, opt_state), metrics

    def update(
        learner: PQNLearner, rollout: Rollout, key: Key
    ) -> tuple[PQNLearner, Metrics]:
        (params, opt_state), trace = scan_minibatches(
            gradient_step,
            (learner.params, learner.opt_state),
            key,
            steps_of(rollout, cfg),
            rollout.carry,
            epochs=cfg.epochs,
            minibatches=cfg.minibatches,
        )
        after = learner.replace(
            params=params, opt_state=opt_state, updates=learner.updates + 1
        )
        return after, _phase_metrics(learner, after, rollout, trace)

    return update


def replay_update(
    net: QNetwork,
    tx: optax.GradientTransformation,
    cfg: ReplayConfig,
    warmup_updates: int,
    terms: Sequence[Term] = (),
) -> UpdateFn:
    """Build the learning phase with replay: insert the rollout, then take ``gradient_steps``.

    The first ``warmup_updates`` learning phases only insert, and report losses of zero.

    After every ``target_every`` gradient steps of the run, the target network moves towards the
    online network by the fraction ``target_rate``. With (25, 1.0) it is copied every 25 steps.
    With (1, 0.005) it is a Polyak average.

    Args:
        net: Agent network and mixer.
        tx: Gradient transformation.
        cfg: Configuration of the kit.
        warmup_updates: Learning phases without gradient steps at the start of the run.
        terms: Terms to add to the loss.

    Returns:
        Function ``(learner, rollout, key) -> (learner, metrics)``.
    """
    loss = double_q_loss(net, cfg, terms)

    def update(
        learner: ReplayLearner, rollout: Rollout, key: Key
    ) -> tuple[ReplayLearner, Metrics]:
        chunk = compress(steps_of(rollout, cfg), rollout.encoded_obs, cfg)
        replay = insert(learner.replay, learner.updates, chunk, rollout.carry)
        updates = learner.updates + 1

        def gradient_step(state: Any, number_and_key: tuple[Array, Key]) -> Any:
            params, opt_state, target = state
            number, key = number_and_key
            steps, carry = sample(replay, updates, key, cfg.batch_size)
            if not cfg.stored_carry:
                carry = net.agent.initial(cfg.batch_size)
            weight = mean_weights(_after_burn_in(steps.valid[:-1], cfg))
            loss_gradient = gradient(lambda params, *rest: loss(params, target, *rest))
            grad_out = loss_gradient(params, carry, steps, weight)
            params, opt_state, metrics = apply_gradients(
                tx, params, opt_state, grad_out
            )
            target = update_target_params(target, params, number, cfg)
            return (params, opt_state, target), metrics

        phase = learner.updates - warmup_updates
        numbers = phase * cfg.gradient_steps + jnp.arange(1, cfg.gradient_steps + 1)
        keys = jax.random.split(key, cfg.gradient_steps)
        start = (learner.params, learner.opt_state, learner.target)

        def learn() -> Any:
            return jax.lax.scan(gradient_step, start, (numbers, keys))

        def wait() -> Any:
            trace = jax.eval_shape(learn)[1]
            return start, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), trace)

        end, trace = (
            jax.lax.cond(phase >= 0, learn, wait) if warmup_updates else learn()
        )
        params, opt_state, target = end
        after = learner.replace(
            params=params,
            opt_state=opt_state,
            target=target,
            replay=replay,
            updates=updates,
        )
        return after, _phase_metrics(learner, after, rollout, trace)

    return update


def _after_burn_in(valid: Bool[Array, "T B"], cfg: ReplayConfig) -> Bool[Array, "T B"]:
    """Exclude the loss of the first rows of each sequence."""
    row = jnp.arange(len(valid))[:, None]
    return valid & (row >= cfg.burn_in)


def update_target_params(
    target: Params, params: Params, number: Int[Array, ""], cfg: ReplayConfig
) -> Params:
    """Return the target network after a gradient step.

    Args:
        target: Parameters of the target network.
        params: Parameters of the online network.
        number: Number of the gradient step, from 1 at the start of the run.
        cfg: Configuration of the kit.

    Returns:
        New parameters of the target network.
    """
    rate = jnp.where(number % cfg.target_every == 0, cfg.target_rate, 0.0)

    def move(old: Array, new: Array) -> Array:
        return jnp.where(rate == 1, new, old + rate * (new - old))

    return jax.tree.map(move, target, params)


def _phase_metrics(
    before: PQNLearner, after: PQNLearner, rollout: Rollout, trace: Metrics
) -> Metrics:
    """Return means over the gradient steps, the skipped steps, and the exploration rate."""
    metrics = {name: x.mean() for name, x in trace.items()}
    skipped = skipped_steps(after.opt_state) - skipped_steps(before.opt_state)
    epsilon = rollout.steps.extras.epsilon.mean()
    return metrics | {"skipped_steps": skipped, "epsilon": epsilon}


def compress(steps: Steps, encoded_obs: Any, cfg: ReplayConfig) -> Steps:
    """Convert rows to the format of the replay buffer.

    Args:
        steps: Rows of sequences.
        encoded_obs: Their observations encoded by ``Spec.obs_codec``, or None without a codec.
        cfg: Configuration of the kit.

    Returns:
        Rows with encoded observations, or without a codec with features in ``cfg.replay_dtype``.
    """
    if encoded_obs is None:
        encoded_obs = _cast(steps.obs, jnp.dtype(cfg.replay_dtype))
    return steps.replace(obs=encoded_obs)


def decompress(steps: Steps, spec: Spec) -> Steps:
    """Convert rows of the replay buffer to inputs of the networks, the inverse of ``compress``.

    Args:
        steps: Rows in the format of the replay buffer, with leaves ``[T + 1, B, ...]``.
        spec: Description of the environment.

    Returns:
        Rows with observations in float32.
    """
    if spec.obs_codec:
        obs = jax.vmap(spec.obs_codec.decode)(steps.obs)
    else:
        obs = _cast(steps.obs, jnp.dtype(jnp.float32))
    return steps.replace(obs=obs)


def _cast(obs: EntityObs, dtype: Any) -> EntityObs:
    def cast(x: Array) -> Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, obs)


def empty_steps(spec: Spec, *batch: int) -> Steps:
    """Return rows of zeros.

    Args:
        spec: Description of the environment.
        *batch: Leading axes, such as T and B.

    Returns:
        Rows with leaves ``[*batch, ...]``.
    """
    return Steps(
        obs=empty_obs(spec, *batch),
        first=jnp.zeros(batch, bool),
        valid=jnp.zeros(batch, bool),
        action=jnp.zeros((*batch, spec.n_agents), jnp.int32),
        reward=jnp.zeros(batch),
        terminated=jnp.zeros(batch, bool),
    )


def empty_chunk(spec: Spec, config: RunConfig) -> Steps:
    """Return zeros in the format in which the replay buffer stores a rollout.

    Args:
        spec: Description of the environment.
        config: Configuration of the run.

    Returns:
        Rows with leaves ``[T, B, ...]``.
    """
    batch = config.rollout_length, config.num_envs
    encoded_obs = spec.obs_codec.empty(*batch) if spec.obs_codec else None
    return compress(empty_steps(spec, *batch), encoded_obs, config.system)


def make_pqn(
    spec: Spec,
    config: RunConfig,
    agent: nn.Module | None = None,
    added: LossTerms = NO_TERMS,
) -> System:
    """Build Q-learning without replay or target network.

    Args:
        spec: Description of the environment.
        config: Configuration of the run; ``config.system`` is a ``PQNConfig``.
        agent: Agent network (see ``QNetwork``); None: that of the configuration.
        added: Terms to add to the loss.

    Returns:
        System whose learner is a ``PQNLearner``.

    Raises:
        ConfigError: If the environment has continuous actions, or a network does not accept the
            configuration.
    """
    cfg: PQNConfig = config.system
    net = _network(spec, config, agent)._replace(parts=added.parts)
    tx = optimizer(cfg, config.learning_updates)

    def init(key: Key) -> PQNLearner:
        params = net.init(key)
        return PQNLearner(
            params=params, opt_state=tx.init(params), updates=jnp.zeros((), jnp.int32)
        )

    system = _system(net, init, pqn_update(net, tx, cfg, added.terms), cfg)
    return system._replace(fault=added.fault)


def make_replay(
    spec: Spec,
    config: RunConfig,
    agent: nn.Module | None = None,
    added: LossTerms = NO_TERMS,
) -> System:
    """Build Q-learning with a replay buffer and a target network.

    Args:
        spec: Description of the environment.
        config: Configuration of the run; ``config.system`` is a ``ReplayConfig``.
        agent: Agent network (see ``QNetwork``); None: that of the configuration.
        added: Terms to add to the loss.

    Returns:
        System whose learner is a ``ReplayLearner``.

    Raises:
        ConfigError: If the environment has continuous actions, the replay buffer is smaller than
            a rollout, or a network does not accept the configuration.
    """
    cfg: ReplayConfig = config.system
    net = _network(spec, config, agent)._replace(parts=added.parts)
    tx = optimizer(cfg, config.learning_updates)
    capacity = cfg.replay_size // config.rows_per_update
    check(
        capacity >= 1,
        "system.replay_size",
        cfg.replay_size,
        f"must be at least the {config.rows_per_update} rows of one update "
        "(num_envs x rollout_length)",
    )
    rule = f"must be less than rollout_length={config.rollout_length}"
    check(cfg.burn_in < config.rollout_length, "system.burn_in", cfg.burn_in, rule)
    update = replay_update(net, tx, cfg, config.warmup_updates, added.terms)

    def init(key: Key) -> ReplayLearner:
        params = net.init(key)
        chunk, carry = jax.eval_shape(
            lambda: (empty_chunk(spec, config), net.agent.initial(config.num_envs))
        )
        return ReplayLearner(
            params=params,
            opt_state=tx.init(params),
            updates=jnp.zeros((), jnp.int32),
            target=jax.tree.map(jnp.copy, params),
            replay=empty_replay(chunk, carry, capacity),
        )

    return _system(net, init, update, cfg)._replace(fault=added.fault)


def _network(spec: Spec, config: RunConfig, agent: nn.Module | None) -> QNetwork:
    """Return the agent, by default that of a configuration, with the configured mixer."""
    if not spec.discrete:
        raise ConfigError(
            f"env={config.env['name']}: has continuous actions, but Q-learning needs "
            "discrete ones; choose another environment, or a PPO system"
        )
    agent = agent or make_agent(spec, config.network)
    return QNetwork(agent, make_mixer(spec, config.system.mixer), spec)


def _system(
    net: QNetwork, init: Callable[[Key], Learner], update: UpdateFn, cfg: ValueConfig
) -> System:
    def act(params, carry, timestep, key, explore):
        carry, q = net.step(params, carry, timestep)
        action = epsilon_greedy(key, q, timestep.obs.avail, explore)
        epsilon = jnp.broadcast_to(explore, timestep.first.shape)
        return action, carry, ValueExtras(epsilon=epsilon)

    return System(
        init=init,
        carry=net.agent.initial,
        act=act,
        update=update,
        explore=linear_decay(cfg.explore_start, cfg.explore_end, cfg.explore_steps),
    )
