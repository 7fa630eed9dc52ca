"""Time of one joint action against the number of agents, for MAPPO, MAT, MAM and Sable.

    python -m benchmarks.decode [agents=3,10,32,64,100,256,512,1024] [envs=8]
        [recompute=100] [repeats=20] [out=results/decode.json]

Options:

* ``agents``: numbers of agents.
* ``envs``: environments per call.
* ``recompute``: largest number of agents for ``MAT recompute``.
* ``repeats``: samples per time.
* ``out``: JSON file of the record; none by default.

Method: widths of observation and action are fixed, so only the number of agents grows. MAPPO's
actor is the parallel baseline. ``MAT recompute`` runs the whole decoder again for every agent, as
the published code does. At every size cached decoding is checked before it is timed: the parallel
decoder reads the joint action and must choose it again at every position. This holds exactly for
the actions of decoding without a cache. ``benchmarks.scaling`` also has memory, learning and SMAX.

Output: milliseconds by number of agents and fitted exponents, as a table. At 64 agents the ratio of
``MAT recompute`` over MAM is measured interleaved.

Exit codes: 0 if all cached actions equal the uncached ones, 1 if not, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from benchmarks.support.common import (
    PairTiming,
    parse_arguments,
    ratio_text,
    time_call,
    time_pair,
    write_json,
)
from benchmarks.support.growth import exponents, growth_table
from benchmarks.support.policies import (
    RECOMPUTE,
    Act,
    ActInputs,
    as_row,
    away_from_init,
    choose_in_parallel,
    encode,
    fixed_spec,
    load_policy_config,
    make_policy,
    random_inputs,
    recompute_act,
)
from jmarl.cli.process import exit_code
from jmarl.networks.actor_critic import AgentNet
from jmarl.networks.sequence.policy import (
    ActionCodec,
    SequencePolicy,
    action_codec,
    decode,
)
from jmarl.types import Params, Spec


DEFAULTS: dict[str, Any] = {
    "agents": (3, 10, 32, 64, 100, 256, 512, 1024),
    "envs": 8,
    "recompute": 100,
    "repeats": 20,
    "out": "",
}
CACHED = ("MAT", "MAM", "Sable")
RATIO_AT = 64
"""Number of agents at which ``MAT recompute`` and MAM are interleaved."""


class Size(NamedTuple):
    """Measurements at one number of agents."""

    milliseconds: dict[str, float]
    wrong: list[str]
    """Policies with cached actions that differ from the uncached ones."""
    pair: PairTiming | None
    """``MAT recompute`` and MAM interleaved, at ``RATIO_AT`` agents."""


def mlp_act(net: AgentNet) -> Act:
    """Return the act function of MAPPO's actor: all agents at once."""

    def act(params: Params, inputs: ActInputs) -> Array:
        obs, first = as_row(inputs.obs)
        row = net.apply(params, (), obs, first)
        _, logits, _ = cast(tuple[Any, Array, Array], row)
        return jnp.argmax(logits[0] + inputs.noise, axis=-1)

    return act


def cached_act(policy: SequencePolicy, codec: ActionCodec) -> Act:
    """Return the act function of training: one agent after another, with a cache."""

    def act(params: Params, inputs: ActInputs) -> Array:
        obs, first = as_row(inputs.obs)
        carry = policy.carry(len(inputs.obs.own))
        _, rep, _ = policy.encode(params, carry.enc, obs, first)
        before = carry.dec, first[0]
        avail = inputs.obs.avail
        action, _, _ = decode(
            policy, codec, params, before, rep[0], avail, inputs.noise
        )
        return action

    return act


def equals_uncached(
    policy: SequencePolicy, codec: ActionCodec, params: Params, inputs: ActInputs
) -> bool:
    """Return True if the cached joint action is a fixed point of the parallel decoder."""

    @jax.jit
    def act_twice(params: Params, inputs: ActInputs) -> tuple[Array, Array]:
        action = cached_act(policy, codec)(params, inputs)
        rep = encode(policy, params, inputs)
        uncached = choose_in_parallel(policy, codec, params, inputs, action, rep)
        return action, uncached

    with jax.default_matmul_precision("highest"):
        action, uncached = act_twice(params, inputs)
    return bool((action == uncached).all())


def measure(n_agents: int, args: dict[str, Any]) -> Size:
    """Check and time every policy at one number of agents."""
    spec = fixed_spec(n_agents)
    codec = action_codec(spec)
    inputs = random_inputs(spec, codec, args["envs"])
    calls = {"MAPPO": mappo_call(spec, inputs)}
    wrong = []
    for name in CACHED:
        policy = make_policy(name, spec, load_policy_config(name))
        params = away_from_init(jax.jit(policy.init)(jax.random.key(3)))
        act = cached_act(policy, codec)
        calls[name] = partial(jax.jit(act), params, inputs)
        if name == "MAT" and n_agents <= args["recompute"]:
            act = recompute_act(policy, codec)
            calls[RECOMPUTE] = partial(jax.jit(act), params, inputs)
        if not equals_uncached(policy, codec, params, inputs):
            wrong.append(f"{name} at {n_agents} agents")
    repeats = args["repeats"]
    pair = None
    if n_agents == RATIO_AT and RECOMPUTE in calls:
        pair = time_pair(calls[RECOMPUTE], calls["MAM"], repeats, attempts=3)
    seconds = {name: time_call(call, repeats).best for name, call in calls.items()}
    return Size({name: 1e3 * s for name, s in seconds.items()}, wrong, pair)


def mappo_call(spec: Spec, inputs: ActInputs) -> partial:
    """Return MAPPO's call, with initial parameters."""
    net = AgentNet(spec, load_policy_config("MAPPO").network)
    params = net.init(jax.random.key(2), (), *as_row(inputs.obs))
    return partial(jax.jit(mlp_act(net)), params, inputs)


def pair_text(pair: PairTiming) -> str:
    """Return the ratio of ``MAT recompute`` over MAM as text."""
    ratio = ratio_text(pair)
    return f"{RECOMPUTE} over MAM at {RATIO_AT} agents, interleaved: {ratio}"


def main() -> int:
    args = parse_arguments(DEFAULTS)
    rows = {}
    wrong = []
    pair = None
    for n in args["agents"]:
        size = measure(n, args)
        rows[n] = size.milliseconds
        wrong += size.wrong
        pair = size.pair or pair
        times = ", ".join(f"{name} {ms:.3g} ms" for name, ms in rows[n].items())
        print(f"{n} agents: {times}", flush=True)
    print(growth_table(rows, ["MAPPO", *CACHED, RECOMPUTE]))
    if pair:
        print(pair_text(pair))
    if wrong:
        print(f"cached actions differ from the uncached ones: {', '.join(wrong)}")
    else:
        print("cached actions equal the uncached ones")
    if args["out"]:
        record = {
            "arguments": args,
            "milliseconds": rows,
            "exponents": exponents(rows),
            "recompute_over_mam": pair and pair._asdict(),
            "wrong": wrong,
        }
        write_json(args["out"], record)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(exit_code(main))
