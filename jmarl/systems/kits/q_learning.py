"""The value kit: Q-learning of a team, with replay (VDN, QMIX, QPLEX) and without (PQN).

    L = mean_valid 1/2 (Q_tot(s, u) - G)^2,    Q_tot = mixer(Q_1, ..., Q_N, s)

A system supplies an agent network and a mixer; the kit gives back a ``System``. It is called, never inherited, and
has no flag for any one system. With replay G is the TD(lambda) or Q(lambda) return of a target network whose actions
the online network chooses; without, the lambda-return of the network's own greedy values.

Sunehag et al. 2018 (arXiv:1706.05296); Rashid et al. 2018 (arXiv:1803.11485); van Hasselt et al. 2016
(arXiv:1509.06461); Gallici et al. 2024 (arXiv:2407.04811). Differs from the papers: the team's reward is the mean over
its agents, as in the return that is reported; a time limit bootstraps from the true final observation, and traces end
there as at a termination; sequences are whole rollouts that may cross episodes, where memory begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
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
from jmarl.learning.optimizers import optimizer, skipped_steps
from jmarl.learning.parallel import gradient, mean_weights, weighted_sum
from jmarl.learning.replay import Replay, check_sequences, empty_replay, insert, sample
from jmarl.learning.returns import lambda_return
from jmarl.networks.agents import make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import make_mixer
from jmarl.system import System, UpdateFn
from jmarl.systems.kits.q_learning_config import PQNConfig, ReplayConfig, ValueConfig
from jmarl.types import Carry, EntityObs, Key, Metrics, Params, Rollout, Spec, TimeStep


class Steps(struct.PyTreeNode):
    """What is learnt from: rows of sequences, the last of them for its value alone (its action and reward are void)."""

    obs: EntityObs
    first: Bool[Array, "T+1 B"]
    valid: Bool[Array, "T+1 B"]
    action: Int[Array, "T+1 B N"]
    reward: Float[Array, "T+1 B"]
    """The team's: the mean over its agents."""
    terminated: Bool[Array, "T+1 B"]


class ValueExtras(struct.PyTreeNode):
    """What ``act`` stores beside the action."""

    epsilon: Float[Array, "*batch"]


class PQNLearner(struct.PyTreeNode):
    """Everything that learning changes."""

    params: Params
    opt_state: optax.OptState
    updates: Int[Array, ""]


class ReplayLearner(PQNLearner):
    """And what learning from the past needs. ``updates`` counts the chunks that the replay has had."""

    target: Params
    replay: Replay


class QNetwork(NamedTuple):
    """An agent network and a mixer as functions of ``params = {"agent": .., "mixer": ..}``.

    ``agent(carry, obs, first) -> (carry, q[T, B, N, A])`` with ``initial(B) -> carry``;
    ``mixer(q[T, B, N, A], action[T, B, N], obs) -> q_tot[T, B]``.
    """

    agent: nn.Module
    mixer: nn.Module
    spec: Spec

    def init(self, key: Key) -> Params:
        """Parameters of both."""
        obs, first = empty_obs(self.spec, 1, 1), jnp.ones((1, 1), bool)
        agent_key, mixer_key = jax.random.split(key)
        q, action = jnp.zeros(obs.avail.shape), jnp.zeros(obs.alive.shape, jnp.int32)
        return {
            "agent": self.agent.init(agent_key, self.agent.initial(1), obs, first),
            "mixer": self.mixer.init(mixer_key, q, action, obs),
        }

    def step(
        self, params: Params, carry: Carry, timestep: TimeStep
    ) -> tuple[Carry, Float[Array, "B N A"]]:
        """Values of one row, for acting."""
        obs, first = jax.tree.map(lambda x: x[None], (timestep.obs, timestep.first))
        carry, q = _apply(self.agent, params["agent"], carry, obs, first)
        return carry, q[0]

    def unroll(
        self, params: Params, carry: Carry, steps: Steps
    ) -> Float[Array, "T+1 B N A"]:
        """Values of every row, memory being ``carry`` before the first."""
        return _apply(self.agent, params["agent"], carry, steps.obs, steps.first)[1]

    def mix(
        self,
        params: Params,
        q: Float[Array, "T+1 B N A"],
        action: Int[Array, "T+1 B N"],
        steps: Steps,
    ) -> Float[Array, "T+1 B"]:
        """The team's value of an action of each agent."""
        return _apply(self.mixer, params["mixer"], q, action, steps.obs)


def _apply(module: nn.Module, params: Params, *args: Any) -> Any:
    return module.apply(params, *args)


def steps_of(rollout: Rollout) -> Steps:
    """The rows of a rollout, and the time step after them as the last."""
    rows, last = rollout.steps, rollout.last
    steps = Steps(
        obs=rows.obs,
        first=rows.first,
        valid=rows.valid,
        action=rows.action,
        reward=rows.obs.team_mean(rows.reward),
        terminated=rows.terminated,
    )
    end = Steps(
        obs=last.obs,
        first=last.first,
        valid=last.valid,
        action=jnp.zeros_like(rows.action[0]),
        reward=jnp.zeros_like(steps.reward[0]),
        terminated=jnp.zeros_like(rows.terminated[0]),
    )
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), steps, end)


def td_lambda(
    steps: Steps, value: Float[Array, "T+1 B"], cfg: ValueConfig
) -> Float[Array, "T B"]:
    """``G_t = r_t + gamma (1 - terminated_t) ((1 - lambda) V_{t+1} + lambda G_{t+1})``, cut where episodes end."""
    flags = steps.terminated[:-1], steps.valid
    return lambda_return(
        steps.reward[:-1], *flags, value, gamma=cfg.gamma, lam=cfg.td_lambda
    )


def q_lambda(
    steps: Steps,
    value: Float[Array, "T+1 B"],
    taken: Float[Array, "T+1 B"],
    cfg: ValueConfig,
) -> Float[Array, "T B"]:
    """``G_t - Q_t = delta_t + gamma lambda (G_{t+1} - Q_{t+1})``, ``delta_t = r_t + gamma V_{t+1} - Q_t``.

    ``taken`` is Q of the actions taken. Harutyunyan et al. 2016 (arXiv:1602.04951), for the greedy policy. It is
    the return above with rewards ``r_t + V_t - Q_t``, less ``V_t - Q_t`` again; PyMARL2 leaves that last term in
    the target, which so exceeds the one-step target by the gap even at lambda 0.
    """
    gap = (value - taken)[:-1]
    paid = steps.replace(reward=steps.reward.at[:-1].add(gap))
    return td_lambda(paid, value, cfg) - gap


Aux = tuple[Metrics, Metrics]
"""Metrics that are added over devices, and those of which the largest is taken."""


def squared_error(
    taken: Float[Array, "T B"], target: Float[Array, "T B"], weight: Float[Array, "T B"]
) -> tuple[Float[Array, ""], Aux]:
    """Half the squared error of the values of actions taken, and metrics; ``weight`` adds up to 1 over all devices."""
    error = jnp.where(weight > 0, taken - jax.lax.stop_gradient(target), 0.0)
    loss = weighted_sum(0.5 * error**2, weight)
    sums = {
        "q_mean": weighted_sum(taken, weight),
        "target_mean": weighted_sum(target, weight),
    }
    return loss, (sums, {"error_max": jnp.abs(error).max()})


def double_q_loss(
    net: QNetwork, cfg: ReplayConfig
) -> Callable[..., tuple[Float[Array, ""], Aux]]:
    """``loss(params, target, carry, steps, weight)``: the target network values what the online one chooses.

    Both unroll from the same stored memory.
    """

    def loss(
        params: Params,
        target: Params,
        carry: Carry,
        steps: Steps,
        weight: Float[Array, "T B"],
    ) -> Any:
        steps = restore(steps, net.spec)
        online, frozen = (net.unroll(p, carry, steps) for p in (params, target))
        value = net.mix(target, frozen, greedy(online, steps.obs.avail), steps)
        if cfg.returns == "td_lambda":
            goal = td_lambda(steps, value, cfg)
        else:
            goal = q_lambda(
                steps, value, net.mix(target, frozen, steps.action, steps), cfg
            )
        return squared_error(
            net.mix(params, online, steps.action, steps)[:-1], goal, weight
        )

    return loss


def pqn_loss(
    net: QNetwork, cfg: PQNConfig
) -> Callable[..., tuple[Float[Array, ""], Aux]]:
    """``loss(params, carry, steps, weight)``: the network values its own greedy actions (Gallici et al. 2024).

    Returns are computed anew at each gradient step, from the parameters of that step.
    """

    def loss(
        params: Params, carry: Carry, steps: Steps, weight: Float[Array, "T B"]
    ) -> Any:
        q = net.unroll(params, carry, steps)
        value = net.mix(params, q, greedy(q, steps.obs.avail), steps)
        return squared_error(
            net.mix(params, q, steps.action, steps)[:-1],
            td_lambda(steps, value, cfg),
            weight,
        )

    return loss


def descend(
    tx: optax.GradientTransformation, params: Params, opt_state: Any, found: Any
) -> tuple[Any, Any, Metrics]:
    """One gradient step with what ``parallel.gradient`` found."""
    total, (sums, maxima), grads = found
    metrics = jax.tree.map(jnp.sum, sums) | jax.tree.map(jnp.max, maxima)
    changes, opt_state = tx.update(grads, opt_state, params)
    metrics |= {"loss": total, "grad_norm": optax.global_norm(grads)}
    return optax.apply_updates(params, changes), opt_state, metrics


def pqn_update(
    net: QNetwork, tx: optax.GradientTransformation, cfg: PQNConfig
) -> UpdateFn:
    """A learning phase without replay: ``epochs`` x ``minibatches`` gradient steps on the rollout."""
    gradient_of = gradient(pqn_loss(net, cfg))

    def minibatch(state: Any, steps: Steps, carry: Carry) -> Any:
        params, opt_state = state
        found = gradient_of(params, carry, steps, mean_weights(steps.valid[:-1]))
        params, opt_state, metrics = descend(tx, params, opt_state, found)
        return (params, opt_state), metrics

    def update(
        learner: PQNLearner, rollout: Rollout, key: Key
    ) -> tuple[PQNLearner, Metrics]:
        start = learner.params, learner.opt_state
        experience, sizes = (
            (steps_of(rollout), rollout.carry),
            {"epochs": cfg.epochs, "minibatches": cfg.minibatches},
        )
        end, trace = scan_minibatches(minibatch, start, key, *experience, **sizes)
        after = learner.replace(
            params=end[0], opt_state=end[1], updates=learner.updates + 1
        )
        return after, _report(learner, after, rollout, trace)

    return update


def replay_update(
    net: QNetwork, tx: optax.GradientTransformation, cfg: ReplayConfig
) -> UpdateFn:
    """A learning phase with replay: take the rollout in, then ``gradient_steps`` on what is sampled.

    After every ``target_every`` gradient steps of the run the target network moves to the online one by the share
    ``target_rate``: (25, 1.0) is a hard copy, (1, 0.005) Polyak averaging.
    """
    loss = double_q_loss(net, cfg)

    def update(
        learner: ReplayLearner, rollout: Rollout, key: Key
    ) -> tuple[ReplayLearner, Metrics]:
        chunk = store(steps_of(rollout), rollout.encoded_obs, cfg)
        replay = insert(learner.replay, learner.updates, chunk, rollout.carry)

        def step(state: Any, row: tuple[Int[Array, ""], Key]) -> Any:
            params, opt_state, target = state
            steps, carry = sample(replay, learner.updates + 1, row[1], cfg.batch_size)
            gradient_of = gradient(lambda params, *args: loss(params, target, *args))
            found = gradient_of(params, carry, steps, mean_weights(steps.valid[:-1]))
            params, opt_state, metrics = descend(tx, params, opt_state, found)
            return (params, opt_state, follow(target, params, row[0], cfg)), metrics

        number = learner.updates * cfg.gradient_steps + jnp.arange(
            1, cfg.gradient_steps + 1
        )
        rows = number, jax.random.split(key, cfg.gradient_steps)
        end, trace = jax.lax.scan(
            step, (learner.params, learner.opt_state, learner.target), rows
        )
        params, opt_state, target = end
        updates = learner.updates + 1
        after = learner.replace(
            params=params,
            opt_state=opt_state,
            target=target,
            replay=replay,
            updates=updates,
        )
        return after, _report(learner, after, rollout, trace)

    return update


def follow(
    target: Params, params: Params, number: Int[Array, ""], cfg: ReplayConfig
) -> Params:
    """The target network after gradient step ``number``, counted from 1 over the run."""
    rate = jnp.where(number % cfg.target_every == 0, cfg.target_rate, 0.0)
    return jax.tree.map(
        lambda old, new: jnp.where(rate == 1, new, old + rate * (new - old)),
        target,
        params,
    )


def _report(
    before: PQNLearner, after: PQNLearner, rollout: Rollout, trace: Metrics
) -> Metrics:
    """Means over the gradient steps, how many were skipped, and the exploration rate that the rollout had."""
    metrics = {name: x.mean() for name, x in trace.items()}
    skipped = skipped_steps(after.opt_state) - skipped_steps(before.opt_state)
    return metrics | {
        "skipped_steps": skipped,
        "epsilon": rollout.steps.extras.epsilon.mean(),
    }


def store(steps: Steps, encoded_obs: Any, cfg: ReplayConfig) -> Steps:
    """Rows as the replay keeps them: a encoded_obs for the observations, or else their features in ``cfg.replay_dtype``."""
    return steps.replace(
        obs=_cast(steps.obs, jnp.dtype(cfg.replay_dtype))
        if encoded_obs is None
        else encoded_obs
    )


def restore(steps: Steps, spec: Spec) -> Steps:
    """Rows as networks read them."""
    obs_codec = (
        jax.vmap(spec.obs_codec.decode)
        if spec.obs_codec
        else lambda obs: _cast(obs, jnp.dtype(jnp.float32))
    )
    return steps.replace(obs=obs_codec(steps.obs))


def _cast(obs: EntityObs, dtype: Any) -> EntityObs:
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, obs
    )


def empty_steps(spec: Spec, *batch: int) -> Steps:
    """Zeros in the shape of a world's rows."""
    return Steps(
        obs=empty_obs(spec, *batch),
        first=jnp.zeros(batch, bool),
        valid=jnp.zeros(batch, bool),
        action=jnp.zeros((*batch, spec.n_agents), jnp.int32),
        reward=jnp.zeros(batch),
        terminated=jnp.zeros(batch, bool),
    )


def empty_chunk(spec: Spec, config: RunConfig) -> Steps:
    """Zeros in the shape of what the replay keeps of a rollout."""
    batch = config.rollout_length, config.num_envs
    return store(
        empty_steps(spec, *batch),
        spec.obs_codec.empty(*batch) if spec.obs_codec else None,
        config.system,
    )


def make_pqn(spec: Spec, config: RunConfig) -> System:
    """Q-learning without replay, with the agent and the mixer that the configuration names."""
    return pqn_system(
        make_agent(spec, config.network),
        make_mixer(spec, config.system.mixer),
        spec,
        config,
    )


def make_replay(spec: Spec, config: RunConfig) -> System:
    """Q-learning from replay, with the agent and the mixer that the configuration names."""
    return replay_system(
        make_agent(spec, config.network),
        make_mixer(spec, config.system.mixer),
        spec,
        config,
    )


def pqn_system(
    agent: nn.Module, mixer: nn.Module, spec: Spec, config: RunConfig
) -> System:
    """Q-learning without replay or target network, of any networks."""
    net, cfg = QNetwork(agent, mixer, spec), config.system
    tx = _optimizer(cfg, cfg.epochs * cfg.minibatches, config.num_updates)

    def init(key: Key) -> PQNLearner:
        params = net.init(key)
        return PQNLearner(
            params=params, opt_state=tx.init(params), updates=jnp.zeros((), jnp.int32)
        )

    return _system(net, init, pqn_update(net, tx, cfg), cfg)


def replay_system(
    agent: nn.Module, mixer: nn.Module, spec: Spec, config: RunConfig
) -> System:
    """Q-learning from replay, of any networks.

    Raises ``ConfigError`` for a batch that the lanes do not divide and a replay that is smaller than a rollout.
    """
    net, cfg = QNetwork(agent, mixer, spec), config.system
    tx = _optimizer(cfg, cfg.gradient_steps, config.num_updates)
    check_sequences(cfg.batch_size)
    capacity = cfg.replay_size // config.rows_per_update
    rule = f"must be at least the {config.rows_per_update} rows of one update (num_envs x rollout_length)"
    check(capacity >= 1, "system.replay_size", cfg.replay_size, rule)

    def init(key: Key) -> ReplayLearner:
        params = net.init(key)
        chunk, carry = jax.eval_shape(
            lambda: (empty_chunk(spec, config), agent.initial(config.num_envs))
        )
        return ReplayLearner(
            params=params,
            opt_state=tx.init(params),
            updates=jnp.zeros((), jnp.int32),
            target=jax.tree.map(jnp.copy, params),
            replay=empty_replay(chunk, carry, capacity),
        )

    return _system(net, init, replay_update(net, tx, cfg), cfg)


def _optimizer(
    cfg: ValueConfig, steps_per_update: int, num_updates: int
) -> optax.GradientTransformation:
    counts = {"steps_per_update": steps_per_update, "num_updates": num_updates}
    return optimizer(cfg.lr, cfg.max_grad_norm, anneal=cfg.anneal_lr, **counts)


def _system(
    net: QNetwork, init: Callable[[Key], Any], update: UpdateFn, cfg: ValueConfig
) -> System:
    if not net.spec.discrete:
        raise ConfigError(
            "env: its actions are continuous, and a value system chooses among a number of them"
        )

    def act(params, carry, timestep, key, explore):
        carry, q = net.step(params, carry, timestep)
        action = epsilon_greedy(key, q, timestep.obs.avail, explore)
        return (
            action,
            carry,
            ValueExtras(epsilon=jnp.broadcast_to(explore, timestep.first.shape)),
        )

    return System(
        init=init,
        carry=net.agent.initial,
        act=act,
        update=update,
        explore=linear_decay(cfg.explore_start, cfg.explore_end, cfg.explore_steps),
    )
