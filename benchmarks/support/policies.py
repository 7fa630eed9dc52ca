"""Policies and random inputs of the benchmarks against the number of agents.

A policy has the defaults of its system, except for the parts that would grow with the team: a
one-hot of the agent, and a critic that reads one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl import load_config
from jmarl.config import RunConfig
from jmarl.envs.batched import flat_spec
from jmarl.networks.flatten import empty_obs
from jmarl.networks.sequence.policy import ActionCodec, SequencePolicy, teacher_forced
from jmarl.system import System
from jmarl.types import EntityObs, Params, Spec


OBS_WIDTH = 64
N_ACTIONS = 10
NO_AGENT_ID = "network.agent_id=false"
SYSTEMS = {
    # The critic has one value per agent. Its input does not grow with the team if the
    # widths of the environment do not.
    "MAPPO": ("mappo", "system.critic_input=state_and_obs"),
    "HAPPO": ("happo", "system.critic_input=state_and_obs"),
    "MAT": ("mat_ppo",),
    "MAM": ("mam_ppo",),
    "rec-MAM": ("rec_mam",),
    "Sable": ("sable",),
    "rec-Sable": ("rec_sable",),
}
"""Module of the system and its overrides."""
RECOMPUTE = "MAT recompute"
"""MAT that acts as the published code does: the whole decoder runs again for each agent."""


class ActInputs(NamedTuple):
    """Observations of all agents, and the noise of their actions."""

    obs: EntityObs
    noise: Float[Array, "B N A"]


Act = Callable[[Params, ActInputs], Int[Array, "B N"]]
"""``(params, inputs) -> action[B, N]``."""


@functools.cache
def load_policy_config(name: str, *overrides: str) -> RunConfig:
    """Load the configuration of a policy of ``SYSTEMS``."""
    module, *own = SYSTEMS[name]
    return load_config(module, [NO_AGENT_ID, *own, *overrides])


def make_system(name: str, spec: Spec, config: RunConfig) -> System:
    """Build a system of ``SYSTEMS``."""
    return import_module(f"jmarl.systems.{SYSTEMS[name][0]}").make(spec, config)


def make_policy(name: str, spec: Spec, config: RunConfig) -> SequencePolicy:
    """Build the policy of a system whose agents act one after another."""
    module = import_module(f"jmarl.systems.{SYSTEMS[name][0]}")
    return module.policy(spec, config.network)


def fixed_spec(n_agents: int) -> Spec:
    """Return the spec of an environment with constant widths of observation and action."""
    return flat_spec(n_agents, OBS_WIDTH, N_ACTIONS, episode_limit=1, global_width=1)


def random_obs(spec: Spec, *batch: int) -> EntityObs:
    """Draw normal features on the host. All entities are visible, available and alive."""
    rng = np.random.default_rng(0)

    def fill(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return rng.standard_normal(x.shape, np.float32)
        return np.full(x.shape, x.dtype == bool, x.dtype)

    shapes = jax.eval_shape(lambda: empty_obs(spec, *batch))
    obs = jax.tree.map(fill, shapes)
    return obs.replace(joined=np.zeros_like(obs.joined))


def random_inputs(spec: Spec, codec: ActionCodec, envs: int) -> ActInputs:
    """Draw the inputs of a policy for ``envs`` environments."""
    noise = codec.noise(jax.random.key(0), (envs, spec.n_agents))
    obs = jax.tree.map(jnp.asarray, random_obs(spec, envs))
    return ActInputs(obs, noise)


def random_offset(params: Params) -> Params:
    """Draw, on the host, an offset from the initial values of parameters of these shapes."""
    rng = np.random.default_rng(1)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.float32(0.1) * rng.standard_normal(x.shape, np.float32)

    return jax.tree.map(draw, params)


def away_from_init(params: Params) -> Params:
    """Add a random offset to initial parameters.

    Initial heads are near zero, so the noise alone would choose nearly all actions.
    """
    return jax.tree.map(jnp.add, params, random_offset(params))


def as_row(obs: EntityObs) -> tuple[EntityObs, Bool[Array, "1 B"]]:
    """Return observations as one row ``[1, B, ...]``, and ``first``: no episode begins."""
    first = jnp.zeros((1, obs.own.shape[0]), bool)
    return jax.tree.map(lambda x: x[None], obs), first


def choose_in_parallel(
    policy: SequencePolicy,
    codec: ActionCodec,
    params: Params,
    inputs: ActInputs,
    action: Int[Array, "B N"],
    rep: Float[Array, "1 B N E"],
) -> Int[Array, "B N"]:
    """Return the choices of the parallel decoder, which reads ``action`` as its tokens."""
    _, first = as_row(inputs.obs)
    carry = policy.carry(len(action))
    tokens = teacher_forced(codec, action)[None]
    out = policy.decode_parallel(params, carry.dec, tokens, rep, first)[0]
    distribution = codec.distribution(out, inputs.obs.avail)
    return codec.choose(distribution, inputs.noise)


def encode(
    policy: SequencePolicy, params: Params, inputs: ActInputs
) -> Float[Array, "1 B N E"]:
    """Return the encoder's representations of one row, from the initial memory."""
    obs, first = as_row(inputs.obs)
    carry = policy.carry(len(inputs.obs.own))
    _, rep, _ = policy.encode(params, carry.enc, obs, first)
    return rep


def recompute_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """Return an act function that runs the whole decoder again for each agent."""

    def act(params: Params, inputs: ActInputs) -> Int[Array, "B N"]:
        rep = encode(policy, params, inputs)

        def choose_next(i: Array, action: Array) -> Array:
            chosen = choose_in_parallel(policy, codec, params, inputs, action, rep)
            return action.at[:, i].set(chosen[:, i])

        batch, n_agents, _ = inputs.noise.shape
        start = jnp.zeros((batch, n_agents), jnp.int32)
        return jax.lax.fori_loop(0, n_agents, choose_next, start)

    return act
