"""What the benchmarks against the number of agents share: the policies, and what they are asked.

A policy has the defaults of its system but for what would grow with the team: a one-hot of the agent, and a critic that
reads one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl import load_config
from jmarl.config import RunConfig
from jmarl.envs.batched import flat_spec
from jmarl.networks.flatten import empty_obs
from jmarl.networks.sequence.policy import ActionCodec, SequencePolicy, teacher_forced
from jmarl.system import System
from jmarl.types import EntityObs, Params, Spec


OBS_WIDTH, N_ACTIONS = 64, 10
ALIKE = "network.agent_id=false"
SYSTEMS = {
    # a critic's value for each agent, from widths that do not grow with the team where the world's do not
    "MAPPO": ("mappo", "system.critic_input=state_and_obs"),
    "MAT": ("mat_ppo",),
    "MAM": ("mam_ppo",),
    "rec-MAM": ("mam_ppo", "system=rec_mam"),
    "Sable": ("sable",),
    "rec-Sable": ("sable", "system=rec_sable"),
}
"""Module of the system, and the overrides."""
RECOMPUTE = "MAT recompute"
"""MAT acting as the published code does: the whole decoder again for each agent."""


class SingleEnv(NamedTuple):
    """What every policy is asked: one observation of all agents, and the noise of the choice."""

    obs: EntityObs
    noise: Float[Array, "B N A"]


Act = Callable[[Params, SingleEnv], Array]
"""``(params, world) -> action[B, N]``."""


@functools.cache
def configuration(name: str, *overrides: str) -> RunConfig:
    """The configuration of a policy of ``SYSTEMS``, nothing being started."""
    module, *own = SYSTEMS[name]
    return load_config(module, [ALIKE, *own, *overrides])


def system_of(name: str, spec: Spec, config: RunConfig) -> System:
    """The whole system, acting and learning."""
    return import_module(f"jmarl.systems.{SYSTEMS[name][0]}").make(spec, config)


def policy_of(name: str, spec: Spec, config: RunConfig) -> SequencePolicy:
    """The policy of a system whose agents act one after the other."""
    return import_module(f"jmarl.systems.{SYSTEMS[name][0]}").policy(
        spec, config.network
    )


def fixed_spec(n_agents: int) -> Spec:
    """A world whose observations and actions have one width, however many agents there are."""
    return flat_spec(n_agents, OBS_WIDTH, N_ACTIONS, episode_limit=1, global_width=1)


def random_obs(spec: Spec, *batch: int) -> EntityObs:
    """Normal numbers wherever observations have any, on the host: all is seen, available, and alive."""
    rng = np.random.default_rng(0)

    def fill(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return rng.standard_normal(x.shape, np.float32)
        return np.full(x.shape, x.dtype == bool, x.dtype)

    obs = jax.tree.map(fill, jax.eval_shape(lambda: empty_obs(spec, *batch)))
    return obs.replace(joined=np.zeros_like(obs.joined))


def make_world(spec: Spec, codec: ActionCodec, envs: int) -> SingleEnv:
    """The question for ``envs`` environments."""
    noise = codec.noise(jax.random.key(0), (envs, spec.n_agents))
    return SingleEnv(jax.tree.map(jnp.asarray, random_obs(spec, envs)), noise)


def offset(params: Params) -> Params:
    """What to add to parameters of these shapes so that they are no longer the initial ones, from the host."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: np.float32(0.1) * rng.standard_normal(x.shape, np.float32), params
    )


def away_from_init(params: Params) -> Params:
    """At initialization heads are near zero and the choices nearly those of the noise alone."""
    return jax.tree.map(jnp.add, params, offset(params))


def as_row(obs: EntityObs) -> tuple[EntityObs, Array]:
    """Observations ``[1, B, ...]`` of a row at which no episode begins, and that none does, ``[1, B]``."""
    return jax.tree.map(lambda x: x[None], obs), jnp.zeros((1, obs.own.shape[0]), bool)


def again(
    policy: SequencePolicy,
    codec: ActionCodec,
    params: Params,
    world: SingleEnv,
    action: Array,
    rep: Array,
) -> Array:
    """What the parallel decoder chooses at every position when the agents hear ``action``."""
    _, first = as_row(world.obs)
    carry = policy.carry(len(action))
    out = policy.decode_parallel(
        params, carry.dec, teacher_forced(codec, action)[None], rep, first
    )[0]
    return codec.choose(codec.distribution(out, world.obs.avail), world.noise)


def recompute_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """One agent after the other, the whole decoder each time."""

    def act(params: Params, world: SingleEnv) -> Array:
        _, rep, _ = policy.encode(
            params, policy.carry(len(world.obs.own)).enc, *as_row(world.obs)
        )

        def agent(i: Array, action: Array) -> Array:
            return action.at[:, i].set(
                again(policy, codec, params, world, action, rep)[:, i]
            )

        n_agents = world.obs.own.shape[1]
        return jax.lax.fori_loop(
            0, n_agents, agent, jnp.zeros(world.noise.shape[:2], jnp.int32)
        )

    return act
