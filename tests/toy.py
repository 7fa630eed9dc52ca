"""A minimal system that learns and compiles quickly, for tests of the code around systems.

All agents share one softmax over actions, trained by REINFORCE with Adam. ``install()`` adds the
module ``jmarl.systems.toy``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jmarl.config import (
    ArchConfig,
    CheckpointConfig,
    EvalConfig,
    LoggerConfig,
    RunConfig,
    SystemConfig,
)
from jmarl.envs import probes, registry
from jmarl.learning.optimizers import MAX_SKIPS
from jmarl.system import Learner, System
from jmarl.types import Env, Spec


@dataclasses.dataclass(frozen=True)
class Config(SystemConfig):
    lr: float = 0.1
    nan_at: int = -1
    """Number of the update after which parameters are not finite; -1 for never."""
    nan_loss_at: int = -1
    """Number of the update with a loss and gradients that are not finite; -1 for never."""


@dataclasses.dataclass(frozen=True)
class Network:
    width: int = 1


class ToyLearner(Learner):
    updates: jax.Array


def make(spec: Spec, config: RunConfig) -> System:
    tx = optax.apply_if_finite(optax.adam(config.system.lr), MAX_SKIPS)

    def init(key):
        params = {
            "logits": 0.1 * jax.random.normal(key, (spec.n_actions,)),
            "bias": jnp.zeros(config.network.width),
        }
        return ToyLearner(
            params=params, opt_state=tx.init(params), updates=jnp.int32(0)
        )

    def act(params, carry, timestep, key, explore):
        logits = jnp.broadcast_to(
            params["logits"], (*timestep.obs.alive.shape, spec.n_actions)
        )
        sampled = jax.random.categorical(key, logits)
        return jnp.where(explore > 0, sampled, logits.argmax(-1)), carry, ()

    def update(learner, rollout, key):
        steps = rollout.steps

        def loss_fn(params):
            logp = jax.nn.log_softmax(params["logits"])[steps.action]
            gain = logp * steps.reward * steps.valid[..., None]
            breaks = learner.updates + 1 == config.system.nan_loss_at
            factor = jnp.where(breaks, jnp.nan, 1.0)
            return factor * (-jnp.mean(gain) + jnp.sum(params["bias"] ** 2))

        loss, grads = jax.value_and_grad(loss_fn)(learner.params)
        changes, opt_state = tx.update(grads, learner.opt_state)
        params = optax.apply_updates(learner.params, changes)
        updates = learner.updates + 1
        diverged = updates == config.system.nan_at
        params["bias"] = jnp.where(diverged, jnp.nan, params["bias"])
        after = ToyLearner(params=params, opt_state=opt_state, updates=updates)
        return after, {"loss": loss}

    return System(init, lambda batch: (), act, update, lambda env_steps: jnp.ones(()))


def install() -> None:
    module = types.ModuleType("jmarl.systems.toy")
    module.__dict__.update(Config=Config, Network=Network, make=make)
    sys.modules["jmarl.systems.toy"] = module


def config(**changes: Any) -> RunConfig:
    """Return a configuration of 8 updates in 4 intervals on ``probe_bandit``."""
    base = RunConfig(
        system_name="toy",
        seed=0,
        num_seeds=1,
        total_timesteps=8 * 64,
        num_envs=8,
        rollout_length=8,
        run_dir="",
        resume="",
        env={"name": "probe_bandit"},
        system=Config(),
        network=Network(),
        arch=ArchConfig("cpu", 1, ""),
        eval=EvalConfig(16, 2 * 64, 2),
        checkpoint=CheckpointConfig(True, 1, 2, True),
        logger=LoggerConfig(False, False, "", "disabled"),
    )
    return dataclasses.replace(base, **changes)


def nan_bandit(first: int = 0, steps: int = 1, chance: float = 1.0) -> Env:
    """Build ``probe_bandit`` with rewards that can be NaN for some steps of training.

    Args:
        first: First of these steps, counted from 0 over all episodes.
        steps: Number of these steps.
        chance: Probability that the rewards of such a step are NaN. The random number is that
            of the step, so it depends on the path of the run.
    """
    bandit = probes.bandit()

    def reset(key, batch):
        state, timestep = bandit.reset(key, batch)
        return (state, jnp.zeros(batch, jnp.int32)), timestep

    def step(key, state, action):
        inner, count = state
        inner, timestep = bandit.step(key, inner, action)
        is_due = (first <= count) & (count < first + steps)
        is_bad = is_due & jax.random.bernoulli(jax.random.fold_in(key, 1), chance)
        reward = jnp.where(is_bad[:, None], jnp.nan, timestep.reward)
        return (inner, count + 1), timestep.replace(reward=reward)

    return Env("nan_bandit", bandit.spec, reset, step)


TEAMS = {
    **{f"bandit_{n}": functools.partial(probes.bandit, n_agents=n) for n in (2, 3)},
    **{f"cue_{n}": functools.partial(probes.cue, n_agents=n, length=3) for n in (2, 3)},
    "bandit_of_4": functools.partial(probes.bandit, n_actions=4),
}
"""Environments that differ only in the number of agents, and one with more actions."""


def teams() -> contextlib.AbstractContextManager[None]:
    """Register the environments of ``TEAMS`` within the context."""
    return registered(TEAMS)


@contextlib.contextmanager
def registered(factories: Mapping[str, Callable[..., Env]]) -> Iterator[None]:
    """Register environments by name within the context."""
    for name, factory in factories.items():
        registry.register(name, factory)
    try:
        yield
    finally:
        for name in factories:
            registry._ENTRIES.pop(name)
