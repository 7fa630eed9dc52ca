"""Our skirmish against JaxMARL's SMAX: CPU time of an environment step, side by side.

    python -m benchmarks.env [name=smax_10v10] [envs=64,128,256] [length=50] [repeats=6] [pool=8] [out=results/env.json]

Both sides take random available actions, return observations, rewards and flags, and begin the next episode by
themselves; ``length`` steps are one compiled call. Transitions are compared first, step by step with the same keys and
actions. The column ``pool`` draws starts ahead (``reset_pool``), as training does. Compile times are CPU seconds of
tracing, lowering and compiling, without a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.common import arguments, markdown_table, timed_pair, write_json
from jmarl.envs import make
from jmarl.envs.skirmish import smax
from jmarl.envs.skirmish.rules import scenario
from jmarl.types import Key


DEFAULTS = {"name": "smax_10v10", "envs": (64, 128, 256), "length": 50, "repeats": 6, "pool": 8, "out": ""}
TOLERANCE = 1e-4


class Side(NamedTuple):
    """A compiled rollout that goes on from where it stopped, and what its compilation took."""

    call: Callable[[], Any]
    compile_seconds: float


def main() -> None:
    """Compare, time, print, and write the record if ``out`` is given."""
    jax.config.update("jax_enable_compilation_cache", False)
    args = arguments(DEFAULTS)
    differences = check(args["name"])
    print("differences from JaxMARL, teacher-forced:", differences)
    rows = [row for batch in args["envs"] for row in measure(batch, args)]
    header = [
        "envs",
        "side",
        "us / env step",
        "JaxMARL us",
        "speed-up",
        "noise",
        "compile CPU s",
        "JaxMARL compile CPU s",
    ]
    print(markdown_table(header, [list(row.values()) for row in rows]))
    if args["out"]:
        write_json(args["out"], {"arguments": args, "differences": differences, "rows": rows})


def check(name: str) -> dict[str, float]:
    """Differences over a short rollout; raises ``RuntimeError`` if the transitions are not the same."""
    rules = scenario(name)
    peer = smax.reference(rules)
    found = jax.jit(lambda key: smax.compare(rules, peer, key, batch=8, length=60))(jax.random.key(0))
    values = {field: float(value) for field, value in found._asdict().items()}
    unequal = values["available"] + values["alive"] + values["ended"]
    if unequal or max(values[field] for field in ("start", "observation", "reward", "state")) > TOLERANCE:
        raise RuntimeError(f"{name}: transitions differ from JaxMARL's: {values}")
    return values


def measure(batch: int, args: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for resets drawn in the step, one for a pool of resets."""
    theirs = jaxmarl_rollout(args["name"], batch, args["length"])
    sides = {"exact": 0, "pool": args["pool"]}
    return [
        _row(name, batch, args, theirs, our_rollout(args["name"], batch, args["length"], pool))
        for name, pool in sides.items()
    ]


def our_rollout(name: str, batch: int, length: int, pool: int) -> Side:
    """``length`` steps of our environment with random available actions."""
    env = make(name, reset_pool=pool)

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state, timestep = carry
        return env.step(step_key, state, _act(action_key, timestep.obs.avail)), None

    def rollout(carry: tuple, key: Key) -> tuple:
        state = env.refresh(jax.random.fold_in(key, 0), carry[0])
        return lax.scan(step, (state, carry[1]), jax.random.split(key, length))[0]

    return _compiled(rollout, env.reset(jax.random.key(1), batch))


def jaxmarl_rollout(name: str, batch: int, length: int) -> Side:
    """The same with JaxMARL's ``step``, which resets by itself, vmapped over environments."""
    env = smax.reference(scenario(name))

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state = carry[0]
        available = jax.vmap(env.get_avail_actions)(state)
        action = _act(action_key, jnp.stack([available[agent] for agent in env.agents], axis=1))
        actions = {agent: action[:, i] for i, agent in enumerate(env.agents)}
        obs, state, reward, done, _ = jax.vmap(env.step)(jax.random.split(step_key, batch), state, actions)
        return (state, (obs, reward, done)), None

    def rollout(carry: tuple, key: Key) -> tuple:
        return lax.scan(step, carry, jax.random.split(key, length))[0]

    obs, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), batch))
    reward = {agent: jnp.zeros(batch) for agent in env.agents}
    done = {agent: jnp.zeros(batch, bool) for agent in (*env.agents, "__all__")}
    return _compiled(rollout, (state, (obs, reward, done)))


def _act(key: Key, available: jax.Array) -> jax.Array:
    scores = jnp.where(available.astype(bool), jax.random.uniform(key, available.shape), -1.0)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def _compiled(rollout: Callable[[tuple, Key], tuple], carry: tuple) -> Side:
    started = time.process_time()
    executable = jax.jit(rollout).lower(carry, jax.random.key(0)).compile()
    seconds = time.process_time() - started
    latest = [carry, jax.random.key(2)]

    def call() -> Any:
        key, latest[1] = jax.random.split(latest[1])
        latest[0] = executable(latest[0], key)
        return latest[0]

    return Side(call, seconds)


def _row(name: str, batch: int, args: dict[str, Any], theirs: Side, ours: Side) -> dict[str, Any]:
    timing = timed_pair(theirs.call, ours.call, args["repeats"])
    scale = 1e6 / (batch * args["length"])
    return {
        "envs": batch,
        "side": name,
        "us": timing.candidate.best * scale,
        "jaxmarl_us": timing.baseline.best * scale,
        "speedup": timing.ratio,
        "noise": timing.noise,
        "compile_s": ours.compile_seconds,
        "jaxmarl_compile_s": theirs.compile_seconds,
    }


if __name__ == "__main__":
    main()
