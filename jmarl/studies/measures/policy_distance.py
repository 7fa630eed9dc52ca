"""Measure of behavioral heterogeneity: distance between the agents' policies.

System neural diversity is the mean distance between the policies of two agents on the same
observations (Bettini et al. 2023, arXiv:2305.02128). The distance here is total variation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.config import check, check_range
from jmarl.saved.record import make_recorder
from jmarl.studies.measures.saved_run import SavedRun, by_seed
from jmarl.training.anakin import Actor
from jmarl.training.build import BuiltRun
from jmarl.types import EntityObs, Key, Params, Spec, TimeStep


@dataclass(frozen=True)
class Options:
    """Episodes whose observations are given to the policies of all agents.

    Attributes:
        episodes: Sampled episodes.
        seed: Seed of the episodes.
    """

    episodes: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("measure.options.episodes", self.episodes, 1)


def measure(run: SavedRun, options: Options) -> dict[str, Any]:
    """Return the diversity of the policies of a run.

    Each agent's policy reads the observations of agent k, from the start of an episode, for every
    k. It reads its own unit class, if observations show it. The distance is that of the
    distributions over the actions without a target, given that one of these is taken. The mean is
    over pairs of agents, and over the rows on which agent k is alive.

    Args:
        run: The run; the parameters of each seed's best evaluation are measured.
        options: Episodes.

    Returns:
        ``diversity``; with latents, this is with sampled latents, and ``mean_diversity`` with
        latents at their means.

    Raises:
        ConfigError: If the system has no discrete policies of agents.
    """
    config, env, system = run.built
    rule = "has no distribution over actions for each agent; measure PPO systems"
    check(system.policy is not None, "system", config.system_name, rule)
    rule = "has continuous actions; use an environment with discrete ones"
    check(env.spec.discrete, "env", config.env["name"], rule)
    one = jax.jit(make_measure(run.built, options))
    return by_seed(one, run.params(), run.keys(options.seed))


def make_measure(run: BuiltRun, options: Options) -> Any:
    """Build the function ``(params, key) -> metrics`` of one seed."""
    _, env, system = run
    record = make_recorder(env, system, options.episodes, _read)
    explore = jnp.ones(())

    def one(params: Params, key: Key) -> dict[str, Any]:
        timesteps: TimeStep = record(params, key, explore)
        counts = timesteps.valid[..., None] & timesteps.obs.alive  # [T, B, N]
        shared = shared_observations(timesteps, env.spec)

        def diversity(explore: Array) -> Array:
            probs = self_probabilities(run, params, shared, key, explore)
            distance = total_variation(probs).reshape(counts.shape)
            return jnp.mean(distance, where=counts)

        found = {"diversity": diversity(explore)}
        if system.latents:
            found["mean_diversity"] = diversity(jnp.zeros(()))
        return found

    return one


def _read(before: Actor, after: Actor) -> TimeStep:
    return before.timestep


def shared_observations(steps: TimeStep, spec: Spec) -> TimeStep:
    """Return time steps ``[T, B * N]`` in which all agents observe the same.

    Environment ``b * N + k`` has the observations of agent k in all places, except for each
    agent's unit class.

    Args:
        steps: Time steps ``[T, B]``.
        spec: Description of the environment.
    """
    n = spec.n_agents

    def spread(x: Array) -> Array:  # [T, B, N, ...] -> [T, B * N, N, ...]
        shape = (
            *x.shape[:2],
            n,
            n,
            *x.shape[3:],
        )
        return jnp.broadcast_to(x[:, :, :, None], shape).reshape(
            len(x),
            -1,
            *shape[3:],
        )

    def repeat(x: Array) -> Array:  # [T, B, ...] -> [T, B * N, ...]
        return jnp.repeat(x, n, axis=1)

    obs = steps.obs
    unit_class = repeat(obs.unit_class)
    own = spread(obs.own)
    if spec.class_features:
        one_hot = jax.nn.one_hot(unit_class, len(spec.class_features))
        own = own.at[..., np.array(spec.class_features)].set(one_hot)
    shared = EntityObs(
        own=own,
        rows=tuple(map(spread, obs.rows)),
        mask=tuple(map(spread, obs.mask)),
        avail=spread(obs.avail),
        alive=spread(obs.alive),
        joined=spread(obs.joined),
        unit_class=unit_class,
        state=jax.tree.map(repeat, obs.state),
    )
    others = jax.tree.map(
        repeat,
        steps.replace(obs=None, reward=None),
    )
    return others.replace(
        obs=shared,
        reward=jnp.zeros(shared.alive.shape),
    )


def self_probabilities(
    run: BuiltRun, params: Params, steps: TimeStep, key: Key, explore: Array
) -> Float[Array, "T B N A"]:
    """Return each policy's probabilities of the actions without a target, given one is taken.

    Args:
        run: The run.
        params: Parameters of one seed.
        steps: Time steps ``[T, B]``.
        key: Random key of latents.
        explore: 0: latents are at their means.
    """
    policy, spec = run.system.policy, run.env.spec
    assert policy is not None
    columns = np.flatnonzero(np.array(spec.action_target) < 0)

    def step(carry: Any, inputs: Any) -> Any:
        timestep, key = inputs
        dist, carry = policy(params, carry, timestep, key, explore)
        return carry, jax.nn.softmax(dist.logits[..., columns])

    length, batch = steps.first.shape
    keys = jax.random.split(key, length)
    return jax.lax.scan(step, run.system.carry(batch), (steps, keys))[1]


def total_variation(probs: Float[Array, "*batch N A"]) -> Float[Array, "*batch"]:
    """Return the mean total-variation distance over all pairs of two agents.

    Args:
        probs: Distribution of each agent.

    Returns:
        A number in [0, 1]; 0 for a single agent.
    """
    n = probs.shape[-2]
    apart = jnp.abs(probs[..., :, None, :] - probs[..., None, :, :])
    return 0.5 * apart.sum((-3, -2, -1)) / max(n * (n - 1), 1)
