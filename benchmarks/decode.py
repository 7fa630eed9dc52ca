"""One joint action: time against the number of agents for MAPPO, MAT, MAM and Sable.

    python -m benchmarks.decode [agents=3,10,32,64,100,256,512,1024] [envs=8] [recompute=100] [repeats=20]
                                [out=results/decode.json]

Widths of observation and action are fixed, so that only the number of agents grows; MAPPO's actor
is the parallel baseline. ``MAT recompute`` runs the whole decoder again for every agent, as the
published code does, for at most ``recompute`` agents. Before anything is timed, cached decoding is
compared with the form without a cache, at every size: a joint action is the one that recomputing
would give exactly when the parallel decoder, fed with it, chooses it again at every position. The
exit status is 1 where one disagrees. ``benchmarks.scaling`` has memory, learning and SMAX as well.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from benchmarks.common import (
    PairTiming,
    arguments,
    ratio_text,
    timed,
    timed_pair,
    write_json,
)
from benchmarks.growth import exponents, growth_table
from benchmarks.policies import (
    RECOMPUTE,
    Act,
    SingleEnv,
    again,
    as_row,
    away_from_init,
    configuration,
    fixed_spec,
    make_world,
    policy_of,
    recompute_act,
)
from jmarl.networks.actor_critic import AgentNet
from jmarl.networks.sequence.policy import (
    ActionCodec,
    SequencePolicy,
    action_codec,
    decode,
)


DEFAULTS: dict[str, Any] = {
    "agents": (3, 10, 32, 64, 100, 256, 512, 1024),
    "envs": 8,
    "recompute": 100,
    "repeats": 20,
    "out": "",
}
CACHED = ("MAT", "MAM", "Sable")
RATIO_AT = 64


class Size(NamedTuple):
    """What was measured at one number of agents."""

    milliseconds: dict[str, float]
    wrong: list[str]
    """Policies whose cached actions are not the uncached ones."""
    pair: PairTiming | None
    """Recomputing MAT and MAM in turn, at ``RATIO_AT`` agents."""


def mlp_act(net: AgentNet) -> Act:
    """MAPPO's actor: all agents at once."""

    def act(params: Any, world: SingleEnv) -> Array:
        obs, first = as_row(world.obs)
        _, out = cast(tuple[Any, Array], net.apply(params, (), obs, first))
        return jnp.argmax(out[0] + world.noise, axis=-1)

    return act


def cached_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """One agent after the other from a cached state: what acting does."""

    def act(params: Any, world: SingleEnv) -> Array:
        obs, first = as_row(world.obs)
        carry = policy.carry(len(world.obs.own))
        _, rep, _ = policy.encode(params, carry.enc, obs, first)
        state = policy.decode_start(params, carry.dec, first[0])
        return decode(
            policy, codec, params, state, rep[0], world.obs.avail, world.noise
        )[0]

    return act


def same_as_uncached(
    policy: SequencePolicy, codec: ActionCodec, params: Any, world: SingleEnv
) -> bool:
    """Whether the cached joint action is a fixed point of the parallel decoder."""

    @jax.jit
    def both(params: Any, world: SingleEnv) -> tuple[Array, Array]:
        action = cached_act(policy, codec)(params, world)
        _, rep, _ = policy.encode(
            params, policy.carry(len(world.obs.own)).enc, *as_row(world.obs)
        )
        return action, again(policy, codec, params, world, action, rep)

    with jax.default_matmul_precision("highest"):
        action, chosen = both(params, world)
    return bool((action == chosen).all())


def measure(n_agents: int, args: dict[str, Any]) -> Size:
    """Check each policy at one size, and time it."""
    spec = fixed_spec(n_agents)
    codec = action_codec(spec)
    world = make_world(spec, codec, args["envs"])
    mlp = AgentNet(spec, configuration("MAPPO").network)
    jobs: dict[str, tuple[Act, Any]] = {
        "MAPPO": (mlp_act(mlp), mlp.init(jax.random.key(2), (), *as_row(world.obs))),
    }
    wrong = []
    for name in CACHED:
        policy = policy_of(name, spec, configuration(name))
        params = away_from_init(jax.jit(policy.init)(jax.random.key(3)))
        jobs[name] = cached_act(policy, codec), params
        if name == "MAT" and n_agents <= args["recompute"]:
            jobs[RECOMPUTE] = recompute_act(policy, codec), params
        if not same_as_uncached(policy, codec, params, world):
            wrong.append(f"{name} at {n_agents} agents")
    calls = {
        name: partial(jax.jit(act), params, world)
        for name, (act, params) in jobs.items()
    }
    pair = None
    if n_agents == RATIO_AT and RECOMPUTE in calls:
        pair = timed_pair(calls[RECOMPUTE], calls["MAM"], args["repeats"], attempts=3)
    return Size(
        {name: 1e3 * timed(call, args["repeats"]).best for name, call in calls.items()},
        wrong,
        pair,
    )


def verdict(pair: PairTiming) -> str:
    """The ratio in words, or why there is none."""
    return f"{RECOMPUTE} over MAM at {RATIO_AT} agents, in turn: {ratio_text(pair)}"


def main() -> int:
    args = arguments(DEFAULTS)
    rows, wrong, pair = {}, [], None
    for n in args["agents"]:
        rows[n], errors, timing = measure(n, args)
        wrong, pair = wrong + errors, timing or pair
        print(
            f"{n} agents: "
            + ", ".join(f"{name} {ms:.3g} ms" for name, ms in rows[n].items()),
            flush=True,
        )
    print(growth_table(rows, ["MAPPO", *CACHED, RECOMPUTE]))
    if pair:
        print(verdict(pair))
    print(
        "; ".join(f"not the uncached actions: {x}" for x in wrong)
        or "cached actions equal the uncached ones"
    )
    if args["out"]:
        found = {
            "milliseconds": rows,
            "exponents": exponents(rows),
            "recompute_over_mam": pair and pair._asdict(),
        }
        write_json(args["out"], {"arguments": args, **found, "wrong": wrong})
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
