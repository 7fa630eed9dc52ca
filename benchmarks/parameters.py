"""Sizes without a run: parameters of every agent and mixer, and the bytes of a replay.

    python -m benchmarks.parameters [sizes=5,10,20] [rows=640000] [envs=32] [out=results/parameters.json]

At ``smax_<n>v<n>`` for each n of ``sizes``, every network at its defaults. Shapes are those of ``System.init`` and of
the modules' own initialization under ``jax.eval_shape``: no network is run and no replay is held.

The replay is the whole of ``ReplayLearner.replay`` with ``system.replay_size=rows`` and ``envs`` environments: what it
keeps of each row, one chunk more than it can hold (``learning/replay.py``), and the memory of the agents before each
chunk. Beside it stands a replay in the same layout that keeps observations and central state as float32 in place of
what they are made again from.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import arguments, count, markdown_table, write_json
from jmarl import load_config
from jmarl.cli.launch import exit_code
from jmarl.config import RunConfig, check
from jmarl.envs import make
from jmarl.networks.agents import make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import make_mixer
from jmarl.training.programs import number_of_bytes
from jmarl.types import Spec


DEFAULTS: dict[str, Any] = {
    "sizes": (5, 10, 20),
    "rows": 640_000,
    "envs": 32,
    "out": "",
}
AGENTS = {
    "flat GRU": ("network=gru",),
    "HPN, 1 head": ("network=hpn", "network.n_head=1"),
    "HPN, 2 heads": ("network=hpn", "network.n_head=2"),
    "UPDeT": ("network=updet",),
    "SAQA": ("network=saqa",),
}
"""Overrides that choose the agent."""
MIXERS = {
    "sum": "vdn",
    "qmix": "qmix",
    "qplex": "qplex",
    "st_hypernet": "spectra_qmix_plus",
}
"""The system whose default mixer it is."""
REPLAYS = ("qmix", "spectra_qmix_plus")

Sizes = dict[str, dict[int, int]]
"""Network -> number of units of a side -> parameters."""


def agent_parameters(spec: Spec, config: RunConfig) -> int:
    """Parameters of the agent network that the configuration names."""
    agent = make_agent(spec, config.network)
    args = empty_obs(spec, 1, 1), jnp.ones((1, 1), bool)
    return count(
        jax.eval_shape(
            lambda key: agent.init(key, agent.initial(1), *args), jax.random.key(0)
        )
    )


def mixer_parameters(spec: Spec, config: RunConfig) -> int:
    """Parameters of the mixer that the configuration names."""
    mixer, obs = make_mixer(spec, config.system.mixer), empty_obs(spec, 1, 1)
    q, action = jnp.zeros(obs.avail.shape), jnp.zeros(obs.alive.shape, jnp.int32)
    return count(
        jax.eval_shape(lambda key: mixer.init(key, q, action, obs), jax.random.key(0))
    )


def parameters(specs: dict[int, Spec]) -> dict[str, Sizes]:
    """Parameters of all agents and of all mixers."""
    agents = {
        name: load_config("qmix", list(overrides)) for name, overrides in AGENTS.items()
    }
    mixers = {name: load_config(system, []) for name, system in MIXERS.items()}
    return {
        "agents": {
            name: {n: agent_parameters(spec, c) for n, spec in specs.items()}
            for name, c in agents.items()
        },
        "mixers": {
            name: {n: mixer_parameters(spec, c) for n, spec in specs.items()}
            for name, c in mixers.items()
        },
    }


def replay_bytes(spec: Spec, config: RunConfig) -> int:
    """Bytes of a whole replay, the agents' memory included."""
    system = import_module(f"jmarl.systems.{config.system_name}").make(spec, config)
    return number_of_bytes(jax.eval_shape(system.init, jax.random.key(0)).replay)


def replays(specs: dict[int, Spec], rows: int, envs: int) -> list[dict[str, Any]]:
    """One line for each system and size: what its replay takes, and what it would with whole observations."""
    sizes = (
        f"num_envs={envs}",
        f"system.replay_size={rows}",
        "system.replay_dtype=float32",
    )
    lines = []
    for name in REPLAYS:
        config = load_config(name, list(sizes))
        held = rows // config.rows_per_update * config.rows_per_update
        for n, spec in specs.items():
            kept, whole = (
                replay_bytes(spec, config),
                replay_bytes(spec._replace(obs_codec=None), config),
            )
            ours = {"bytes": kept, "bytes_a_step": kept / held}
            theirs = {
                "float32_bytes": whole,
                "float32_bytes_a_step": whole / held,
                "ratio": whole / kept,
            }
            lines.append({"system": name, "units": n, "steps": held, **ours, **theirs})
    return lines


def report(found: dict[str, Sizes], lines: list[dict[str, Any]]) -> str:
    """The tables."""
    tables = []
    for kind, rows in found.items():
        units = list(next(iter(rows.values())))
        body = [[name, *(f"{row[n]:,}" for n in units)] for name, row in rows.items()]
        tables.append(
            markdown_table([f"parameters, {kind}", *(f"{n}v{n}" for n in units)], body)
        )
    header = [
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
    ]
    body = [
        [
            line["system"],
            f"{line['units']}v{line['units']}",
            f"{line['steps']:,}",
            *(cell for prefix in ("", "float32_") for cell in _bytes(line, prefix)),
            line["ratio"],
        ]
        for line in lines
    ]
    return "\n\n".join([*tables, markdown_table(header, body)])


def _bytes(line: dict[str, Any], prefix: str) -> list[str]:
    whole, step = line[f"{prefix}bytes"], line[f"{prefix}bytes_a_step"]
    return [f"{whole:,}", f"{whole / 1e9:.3f}", f"{step:,.1f}"]


def main() -> int:
    """Count, print, write."""
    args = arguments(DEFAULTS)
    check(
        all(n >= 1 for n in args["sizes"]),
        "sizes",
        args["sizes"],
        "a team has at least one unit",
    )
    specs = {n: make(f"smax_{n}v{n}").spec for n in args["sizes"]}
    found, lines = parameters(specs), replays(specs, args["rows"], args["envs"])
    print(report(found, lines))
    if args["out"]:
        write_json(
            args["out"], {"arguments": args, "parameters": found, "replays": lines}
        )
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
