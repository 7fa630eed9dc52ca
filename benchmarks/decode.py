"""One joint action: time against the number of agents for MAPPO, MAT, MAM and Sable.

    python -m benchmarks.decode [agents=3,10,32,100,256,512,1024] [envs=8] [recompute=100] [repeats=20]
                                [out=results/decode.json]

Widths of observation and action are fixed, so that only the number of agents grows; MAPPO's actor
is the parallel baseline. ``MAT recompute`` runs the whole decoder again for every agent, as the
published code does, for at most ``recompute`` agents. Before anything is timed, cached decoding is
compared with the form without a cache, at every size: a joint action is the one that recomputing
would give exactly when the parallel decoder, fed with it, chooses it again at every position. The
exit status is 1 where one disagrees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.common import arguments, markdown_table, timed, write_json
from jmarl.envs.batched import flat_obs, flat_spec
from jmarl.networks.actor_critic import AgentNet, NetworkConfig
from jmarl.networks.sequence.policy import ActionCodec, SequencePolicy, action_codec, decode, teacher_forced
from jmarl.systems import mam_ppo, mat_ppo, sable
from jmarl.types import EntityObs, Spec


DEFAULTS: dict[str, Any] = {
    "agents": (3, 10, 32, 100, 256, 512, 1024),
    "envs": 8,
    "recompute": 100,
    "repeats": 20,
    "out": "",
}
OBS_WIDTH, N_ACTIONS, WIDTH = 64, 10, 64
FIT_FROM = 32
NETWORKS = {
    "MAT": (mat_ppo.policy, mat_ppo.Network(embed_dim=WIDTH, n_block=1, n_head=1, agent_id=False)),
    "MAM": (
        mam_ppo.policy,
        mam_ppo.Network(
            embed_dim=WIDTH,
            n_block=1,
            d_state=16,
            d_conv=4,
            expand=2,
            delta_rank=None,
            bi_mode="sum",
            double_residual=True,
            memory=False,
            agent_id=False,
        ),
    ),
    "Sable": (
        sable.policy,
        sable.Network(embed_dim=WIDTH, n_block=1, n_head=1, decay_scale=0.8, memory=False, agent_id=False),
    ),
}
MLP = NetworkConfig(
    torso=(128, 128), memory="none", memory_width=128, head=(), activation="relu", layer_norm=False, agent_id=False
)


class World(NamedTuple):
    """What every policy is asked: one observation of all agents, and the noise of the choice."""

    spec: Spec
    obs: EntityObs
    noise: Array


Act = Callable[[Any, World], Array]
"""``(params, world) -> action[B, N]``."""


def make_world(n_agents: int, envs: int) -> World:
    spec = flat_spec(n_agents, OBS_WIDTH, N_ACTIONS, episode_limit=1, global_width=1)
    own_key, noise_key = jax.random.split(jax.random.key(0))
    own = jax.random.normal(own_key, (envs, n_agents, OBS_WIDTH))
    obs = jax.vmap(lambda x: flat_obs(spec, x, state=jnp.zeros(1)))(own)
    return World(spec, obs, action_codec(spec).noise(noise_key, (envs, n_agents)))


def away_from_init(params: Any) -> Any:
    """At initialisation heads are near zero and the choices nearly those of the noise alone."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def mlp_act(spec: Spec) -> Act:
    """MAPPO's actor: all agents at once."""
    net = AgentNet(spec, MLP)

    def act(params: Any, world: World) -> Array:
        obs, first = _row(world.obs)
        _, out = cast(tuple[Any, Array], net.apply(params, (), obs, first))
        return jnp.argmax(out[0] + world.noise, axis=-1)

    return act


def cached_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """One agent after the other from a cached state: what acting does."""

    def act(params: Any, world: World) -> Array:
        obs, first = _row(world.obs)
        carry = policy.carry(len(world.obs.own))
        _, rep, _ = policy.encode(params, carry.enc, obs, first)
        state = policy.decode_start(params, carry.dec, first[0])
        return decode(policy, codec, params, state, rep[0], world.obs.avail, world.noise)[0]

    return act


def again(policy: SequencePolicy, codec: ActionCodec, params: Any, world: World, action: Array, rep: Array) -> Array:
    """What the parallel decoder chooses at every position when the agents hear ``action``."""
    _, first = _row(world.obs)
    carry = policy.carry(len(action))
    out = policy.decode_parallel(params, carry.dec, teacher_forced(codec, action)[None], rep, first)[0]
    return codec.choose(codec.distribution(out, world.obs.avail), world.noise)


def recompute_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """One agent after the other, the whole decoder each time."""

    def act(params: Any, world: World) -> Array:
        _, rep, _ = policy.encode(params, policy.carry(len(world.obs.own)).enc, *_row(world.obs))

        def agent(i: Array, action: Array) -> Array:
            return action.at[:, i].set(again(policy, codec, params, world, action, rep)[:, i])

        n_agents = world.obs.own.shape[1]
        return jax.lax.fori_loop(0, n_agents, agent, jnp.zeros(world.noise.shape[:2], jnp.int32))

    return act


def same_as_uncached(policy: SequencePolicy, codec: ActionCodec, params: Any, world: World) -> bool:
    """Whether the cached joint action is a fixed point of the parallel decoder."""

    @jax.jit
    def both(params: Any, world: World) -> tuple[Array, Array]:
        action = cached_act(policy, codec)(params, world)
        _, rep, _ = policy.encode(params, policy.carry(len(world.obs.own)).enc, *_row(world.obs))
        return action, again(policy, codec, params, world, action, rep)

    with jax.default_matmul_precision("highest"):
        action, chosen = both(params, world)
    return bool((action == chosen).all())


def measure(n_agents: int, args: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Milliseconds of each policy at one size, and the policies whose cached actions are wrong."""
    world = make_world(n_agents, args["envs"])
    codec = action_codec(world.spec)
    mlp = AgentNet(world.spec, MLP).init(jax.random.key(2), (), *_row(world.obs))
    jobs: dict[str, tuple[Act, Any]] = {"MAPPO": (mlp_act(world.spec), mlp)}
    wrong = []
    for name, (build, network) in NETWORKS.items():
        policy = build(world.spec, network)
        params = away_from_init(jax.jit(policy.init)(jax.random.key(3)))
        jobs[name] = cached_act(policy, codec), params
        if name == "MAT" and n_agents <= args["recompute"]:
            jobs["MAT recompute"] = recompute_act(policy, codec), params
        if not same_as_uncached(policy, codec, params, world):
            wrong.append(f"{name} at {n_agents} agents")
    return {name: _milliseconds(act, params, world, args["repeats"]) for name, (act, params) in jobs.items()}, wrong


def exponents(rows: dict[int, dict[str, float]]) -> dict[str, float]:
    """Slope of log time against log agents, from ``FIT_FROM`` agents on."""
    fits = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        points = np.log([(n, row[name]) for n, row in rows.items() if n >= FIT_FROM and name in row])
        if len(points) > 1:
            fits[name] = float(np.polyfit(points[:, 0], points[:, 1], 1)[0])
    return fits


def main() -> int:
    args = arguments(DEFAULTS)
    rows, wrong = {}, []
    for n in args["agents"]:
        rows[n], errors = measure(n, args)
        wrong += errors
        print(f"{n} agents: " + ", ".join(f"{name} {ms:.3g} ms" for name, ms in rows[n].items()), flush=True)
    fits = exponents(rows)
    header = ["agents", "MAPPO", *NETWORKS, "MAT recompute"]
    table = [[n, *(row.get(name, "-") for name in header[1:])] for n, row in rows.items()]
    table.append([f"exponent, n >= {FIT_FROM}", *(fits.get(name, "-") for name in header[1:])])
    print(markdown_table(header, table))
    print("; ".join(f"not the uncached actions: {x}" for x in wrong) or "cached actions equal the uncached ones")
    if args["out"]:
        write_json(args["out"], {"arguments": args, "milliseconds": rows, "exponents": fits, "wrong": wrong})
    return int(bool(wrong))


def _row(obs: EntityObs) -> tuple[EntityObs, Array]:
    return jax.tree.map(lambda x: x[None], obs), jnp.zeros((1, obs.own.shape[0]), bool)


def _milliseconds(act: Act, params: Any, world: World, repeats: int) -> float:
    run = jax.jit(lambda params, obs, noise: act(params, world._replace(obs=obs, noise=noise)))
    return 1e3 * timed(lambda: run(params, world.obs, world.noise), repeats).best


if __name__ == "__main__":
    sys.exit(main())
