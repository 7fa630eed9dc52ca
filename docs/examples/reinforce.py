"""REINFORCE with one network for all agents (Williams 1992)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jmarl.config import RunConfig, SystemConfig
from jmarl.learning.returns import lambda_return
from jmarl.networks.flatten import empty_obs, flatten
from jmarl.networks.heads import choose, masked_categorical
from jmarl.system import Learner, System
from jmarl.types import Spec


@dataclasses.dataclass(frozen=True)
class Config(SystemConfig):
    lr: float
    gamma: float


@dataclasses.dataclass(frozen=True)
class Network:
    width: int


def make(spec: Spec, config: RunConfig) -> System:
    gamma, tx = config.system.gamma, optax.adam(config.system.lr)
    hidden = nn.Dense(config.network.width)
    net = nn.Sequential([hidden, nn.relu, nn.Dense(spec.n_actions)])

    def policy(params, obs):
        return masked_categorical(net.apply(params, flatten(obs, spec)), obs.avail)

    def init(key):
        params = net.init(key, flatten(empty_obs(spec, 1), spec))
        return Learner(params=params, opt_state=tx.init(params))

    def act(params, carry, timestep, key, explore):
        return choose(policy(params, timestep.obs), key, explore)[0], carry, ()

    def update(learner, rollout, key):
        steps = rollout.steps
        valid = jnp.concatenate([steps.valid, rollout.last.valid[None]])
        zero = jnp.zeros((len(valid), *steps.reward.shape[1:]))
        rows = (steps.reward, steps.terminated, valid, zero)
        returns = lambda_return(*rows, gamma=gamma, lam=1.0)

        def loss(params):
            logp = policy(params, steps.obs).log_prob(steps.action)
            return -(logp * returns).mean(where=valid[:-1, :, None] & steps.obs.alive)

        value, grads = jax.value_and_grad(loss)(learner.params)
        changes, opt_state = tx.update(grads, learner.opt_state)
        params = optax.apply_updates(learner.params, changes)
        return learner.replace(params=params, opt_state=opt_state), {"loss": value}

    return System(init, lambda batch: (), act, update, lambda env_steps: jnp.ones(()))
