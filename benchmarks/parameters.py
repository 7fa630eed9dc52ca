"""Number of parameters of every agent and mixer, and bytes of a replay buffer, without a run.

    python -m benchmarks.parameters [sizes=5,10,20] [rows=640000] [envs=32]
        [out=results/parameters.json]

Options:

* ``sizes``: numbers of units n of each team, in ``smax_<n>v<n>``.
* ``rows``, ``envs``: ``system.replay_size`` and ``num_envs`` of the replay buffer.
* ``out``: JSON file of the record; none by default.

Method: shapes come from ``System.init`` and from the initialization of the modules, under
``jax.eval_shape``. No network runs and no replay buffer is allocated. Every network has its
defaults, except HPN, which has its published width. The bytes are those of all of
``ReplayLearner.replay``: the data of each row, one chunk more than the capacity
(``learning/replay.py``), and the memory of the agents before each chunk. For comparison, a buffer
with the same layout stores observations and central state as float32, instead of the state from
which they are computed again.

Output: tables of parameters by team size, and of bytes.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.support.common import (
    count_parameters,
    markdown_table,
    parse_arguments,
    write_json,
)
from jmarl import load_config
from jmarl.cli.process import exit_code
from jmarl.config import RunConfig, check
from jmarl.envs import make
from jmarl.networks.agents import make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import make_mixer
from jmarl.training.programs import number_of_bytes
from jmarl.types import Key, Params, Spec


DEFAULTS: dict[str, Any] = {
    "sizes": (5, 10, 20),
    "rows": 640_000,
    "envs": 32,
    "out": "",
}
AGENTS = {
    "flat GRU": ("network=gru",),
    "HPN, 1 head": ("network=hpn", "network.memory_width=64", "network.n_head=1"),
    "HPN, 2 heads": ("network=hpn", "network.memory_width=64", "network.n_head=2"),
    "UPDeT": ("network=updet",),
    "SAQA": ("network=saqa",),
}
"""Overrides that select the agent."""
MIXERS = {
    "sum": "vdn",
    "qmix": "qmix",
    "qplex": "qplex",
    "st_hypernet": "spectra_qmix_plus",
}
"""System with this mixer as its default."""
REPLAYS = ("qmix", "spectra_qmix_plus")
"""Systems with a replay buffer to measure."""
REPLAY_HEADER = (
    "replay",
    "units",
    "steps",
    "bytes",
    "GB",
    "bytes a step",
    "float32 bytes",
    "GB",
    "bytes a step",
    "ratio",
)

Sizes = dict[str, dict[int, int]]
"""Network -> number of units per team -> parameters."""


def agent_parameters(spec: Spec, config: RunConfig) -> int:
    """Return the number of parameters of the configured agent network."""
    agent = make_agent(spec, config.network)
    obs = empty_obs(spec, 1, 1)
    first = jnp.ones((1, 1), bool)

    def init(key: Key) -> Params:
        return agent.init(key, agent.initial(1), obs, first)

    return count_parameters(jax.eval_shape(init, jax.random.key(0)))


def mixer_parameters(spec: Spec, config: RunConfig) -> int:
    """Return the number of parameters of the configured mixer."""
    mixer = make_mixer(spec, config.system.mixer_config)
    obs = empty_obs(spec, 1, 1)
    q = jnp.zeros(obs.avail.shape)
    action = jnp.zeros(obs.alive.shape, jnp.int32)

    def init(key: Key) -> Params:
        return mixer.init(key, q, action, obs)

    return count_parameters(jax.eval_shape(init, jax.random.key(0)))


def parameters(specs: dict[int, Spec]) -> dict[str, Sizes]:
    """Return the number of parameters of all agents and of all mixers."""
    agents: Sizes = {}
    for name, overrides in AGENTS.items():
        config = load_config("qmix", overrides)
        agents[name] = {n: agent_parameters(spec, config) for n, spec in specs.items()}
    mixers: Sizes = {}
    for name, system in MIXERS.items():
        config = load_config(system, [])
        mixers[name] = {n: mixer_parameters(spec, config) for n, spec in specs.items()}
    return {"agents": agents, "mixers": mixers}


def replay_bytes(spec: Spec, config: RunConfig) -> int:
    """Return the bytes of a whole replay buffer, including the memory of the agents."""
    system = import_module(f"jmarl.systems.{config.system_name}").make(spec, config)
    learner = jax.eval_shape(system.init, jax.random.key(0))
    return number_of_bytes(learner.replay)


def replays(specs: dict[int, Spec], rows: int, envs: int) -> list[dict[str, Any]]:
    """Return one record per system and size: bytes as stored, and with float32."""
    overrides = (
        f"num_envs={envs}",
        f"system.replay_size={rows}",
        "system.replay_dtype=float32",
    )
    configs = {name: load_config(name, overrides) for name in REPLAYS}
    return [
        _replay_record(name, config, n, spec, rows)
        for name, config in configs.items()
        for n, spec in specs.items()
    ]


def _replay_record(
    name: str, config: RunConfig, units: int, spec: Spec, rows: int
) -> dict[str, Any]:
    steps = rows // config.rows_per_update * config.rows_per_update
    stored = replay_bytes(spec, config)
    float32 = replay_bytes(spec._replace(obs_codec=None), config)
    return {
        "system": name,
        "units": units,
        "steps": steps,
        "bytes": stored,
        "bytes_a_step": stored / steps,
        "float32_bytes": float32,
        "float32_bytes_a_step": float32 / steps,
        "ratio": float32 / stored,
    }


def report(counts: dict[str, Sizes], records: list[dict[str, Any]]) -> str:
    """Return the tables of parameters and of replay buffers."""
    tables = [_parameter_table(kind, sizes) for kind, sizes in counts.items()]
    replay_table = markdown_table(REPLAY_HEADER, [_replay_row(r) for r in records])
    return "\n\n".join([*tables, replay_table])


def _parameter_table(kind: str, sizes: Sizes) -> str:
    units = list(next(iter(sizes.values())))
    header = [f"parameters, {kind}", *(f"{n}v{n}" for n in units)]
    rows = [[name, *(f"{row[n]:,}" for n in units)] for name, row in sizes.items()]
    return markdown_table(header, rows)


def _replay_row(record: dict[str, Any]) -> list[Any]:
    return [
        record["system"],
        f"{record['units']}v{record['units']}",
        f"{record['steps']:,}",
        *_byte_cells(record["bytes"], record["bytes_a_step"]),
        *_byte_cells(record["float32_bytes"], record["float32_bytes_a_step"]),
        record["ratio"],
    ]


def _byte_cells(total: int, per_step: float) -> list[str]:
    return [f"{total:,}", f"{total / 1e9:.3f}", f"{per_step:,.1f}"]


def main() -> int:
    args = parse_arguments(DEFAULTS)
    sizes = args["sizes"]
    positive = all(n >= 1 for n in sizes)
    check(positive, "sizes", sizes, "a team must have at least one unit")
    specs = {n: make(f"smax_{n}v{n}").spec for n in sizes}
    counts = parameters(specs)
    records = replays(specs, args["rows"], args["envs"])
    print(report(counts, records))
    if args["out"]:
        record = {"arguments": args, "parameters": counts, "replays": records}
        write_json(args["out"], record)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
