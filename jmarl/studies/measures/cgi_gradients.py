"""Measure of the cross-group inverse loss: its gradient beside that of PPO, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.config import check, check_range
from jmarl.learning.cross_group import group_errors, group_members
from jmarl.networks.actor_critic import Policy
from jmarl.networks.entity_critic import make_critic
from jmarl.studies.measures.saved_run import SavedRun, by_seed
from jmarl.systems import u_mappo
from jmarl.systems.kits import ppo
from jmarl.systems.kits.cgi import (
    make_agent_with_cgi,
    policy_errors,
    policy_term,
    predict,
)
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import BuiltRun
from jmarl.types import Key, Params


@dataclass(frozen=True)
class Options:
    """Size of the rollout on which both losses are differentiated.

    Attributes:
        envs: Environments.
        steps: Time steps.
        seed: Seed of the rollout.
    """

    envs: int = 64
    steps: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("measure.options.envs", self.envs, 1)
        check_range("measure.options.steps", self.steps, 1)


def measure(run: SavedRun, options: Options) -> dict[str, Any]:
    """Return cosine and errors of a run of ``u_mappo``; nothing for a run without predictor.

    Args:
        run: The run. Its last parameters are measured, with the value statistics of then.
        options: Size of the rollout.

    Returns:
        ``gradient_cosine``: cosine between the gradients of the PPO loss and of the CGI loss with
        respect to the parameters of the agent up to and including its memory. ``cgi_error``:
        the mean error, and ``cgi_error/<g>-<k>`` that of action group g about group k.

    Raises:
        ConfigError: If the run is of another system.
    """
    config = run.built.config
    rule = "has no CGI loss of the policy form; measure runs of u_mappo"
    fits = isinstance(config.system, u_mappo.Config)
    check(fits, "system", config.system_name, rule)
    if config.system.cgi.weight == 0:
        return {}
    one = jax.jit(make_measure(run.built, options))
    found = by_seed(
        lambda *args: _named(one(*args)), run.learners(), run.keys(options.seed)
    )
    return {name: x for name, x in found.items() if not np.isnan(x).all()}


def _named(found: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a seed, with an entry for each pair of groups."""
    table = np.asarray(found.pop("pairs"))
    pairs = {f"cgi_error/{g}-{k}": x for (g, k), x in np.ndenumerate(table)}
    return {**found, **pairs}


def make_measure(run: BuiltRun, options: Options) -> Any:
    """Build the function ``(learner, key) -> {gradient_cosine, cgi_error, pairs}`` of one seed."""
    config, env, system = run
    net, added = make_agent_with_cgi(env.spec, config, policy_term)
    (term,) = added.terms
    policy = Policy(net, env.spec.discrete)
    critic = make_critic(env.spec, config.network, config.system.critic_input)
    functions = ppo.actor_critic_functions(policy, critic, env.spec)
    ppo_loss = ppo.clipped_loss(functions.evaluate, config.system)

    def one(
        learner: dict[str, Any],
        key: Key,
    ) -> dict[str, Any]:
        params, stats = learner["params"], learner["value_stats"]
        k_init, k_rollout = jax.random.split(key)
        runner = init_runner(env, system, options.envs, k_init)
        runner = runner.replace(learner=runner.learner.replace(**learner))
        _, experience, _ = rollout(env, system, runner, options.steps, k_rollout)
        bootstrap = functions.value(params, experience.last_carry, experience.last)
        batch, _, _ = ppo.make_batch(experience, bootstrap, stats, config.system)
        weights = ppo.loss_weights(batch, config.system)
        carry, steps = experience.carry, batch.steps

        def of_ppo(params: Params) -> Any:
            return ppo_loss(params, carry, batch, weights)[0]

        def of_cgi(params: Params) -> Any:
            aux = functions.evaluate(params, carry, steps).aux
            return term(params, aux, batch, weights)[0], aux

        own = jax.grad(of_ppo)(params)
        inverse, aux = jax.grad(of_cgi, has_aux=True)(params)
        features = features_gradient(net.net, params, carry, steps)
        prediction = predict(env.spec, config.system.cgi, params, aux)
        errors = policy_errors(env.spec, config.system.cgi, prediction, steps.obs)
        members = group_members(steps.obs, env.spec)
        counts = errors.counts & steps.valid[..., None, None]
        mean = jnp.mean(errors.error, where=counts)
        return {
            "gradient_cosine": trunk_cosine(agent(own), agent(inverse), features),
            "cgi_error": mean,
            "pairs": group_errors(errors, members, steps.valid),
        }

    return one


def agent(params: Params) -> Params:
    """Return the parameters of the agent network, without those of its predictor."""
    return params["actor"]["params"]["net"]["net"]


def features_gradient(
    net: Any,
    params: Params,
    carry: Any,
    steps: Any,
) -> Params:
    """Return the gradient of a fixed projection of the features after the memory.

    Only the parameters up to and including the memory have one.
    """

    def projected(own: Params) -> Array:
        _, _, x = net.apply(
            {"params": own},
            carry.actor,
            steps.obs,
            steps.first,
        )
        return (x * jnp.arange(1.0, x.shape[-1] + 1)).sum()

    return jax.grad(projected)(agent(params))


def trunk_cosine(
    x: Params,
    y: Params,
    features: Params,
) -> Float[Array, ""]:
    """Return the cosine between two gradients over the leaves that the features depend on.

    Args:
        x: Gradient of the parameters of the agent network.
        y: Another gradient.
        features: Result of ``features_gradient``; a leaf of zeros does not count.
    """
    counts = jax.tree.map(
        lambda g: jnp.any(g != 0),
        features,
    )

    def dot(a: Params, b: Params) -> Array:
        parts = jax.tree.map(
            lambda p, q, c: jnp.where(c, (p * q).sum(), 0.0), a, b, counts
        )
        return jnp.stack(jax.tree.leaves(parts)).sum()

    return dot(x, y) / jnp.sqrt(dot(x, x) * dot(y, y))
