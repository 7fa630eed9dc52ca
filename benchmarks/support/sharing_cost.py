"""Cost of an update by number of action groups, for each way to share parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.scaling import collect, random_timesteps
from benchmarks.support.common import markdown_table, time_each
from benchmarks.support.policies import OBS_WIDTH, random_offset
from benchmarks.support.update_cost import PHASE, UpdateJob, update_job
from jmarl import load_config
from jmarl.envs.batched import flat_spec
from jmarl.systems import u_mappo
from jmarl.types import Spec, TimeStep


OWN_ACTIONS = 6
BLOCKS = (30, 16)
"""Numbers of actions that only one group has, for groups with even and odd index."""
N_AGENTS = 16
NO_CGI = "system.cgi.weight=0"
ARMS = {
    "unified actions": (NO_CGI,),
    "unified actions and CGI": (),
    "heads": (NO_CGI, "network.share=heads"),
    "networks": (NO_CGI, "network.share=nets"),
}
"""Overrides of U-MAPPO for each way to share parameters."""
HEADER = (
    "groups",
    "actions",
    "arm",
    "parameters",
    "MFLOP",
    "temporary, MiB",
    "update, ms",
    "ratio",
)


def grouped_spec(n_groups: int) -> Spec:
    """Return a spec in which every action group has a block of actions that no other has.

    All groups also share ``OWN_ACTIONS`` actions. This is the worst case for unified actions:
    groups that share targets, such as marines and marauders, do not widen the output.
    """
    sizes = [BLOCKS[k % 2] for k in range(n_groups)]
    block = np.repeat(np.arange(n_groups), sizes)
    own = np.ones((n_groups, OWN_ACTIONS), bool)
    rows = np.concatenate([own, block == np.arange(n_groups)[:, None]], axis=1)
    spec = flat_spec(N_AGENTS, OBS_WIDTH, rows.shape[1], 1, global_width=OBS_WIDTH)
    actions = tuple(tuple(row) for row in rows.tolist())
    return spec._replace(n_unit_classes=n_groups, class_actions=actions)


def grouped_timesteps(spec: Spec, envs: int, rows: int) -> TimeStep:
    """Draw random time steps. Agent i has unit class i modulo the number of classes."""
    steps = random_timesteps(spec, envs, rows)
    classes = jnp.arange(spec.n_agents) % spec.n_unit_classes
    unit_class = jnp.broadcast_to(classes, steps.obs.unit_class.shape)
    avail = jnp.asarray(spec.class_actions)[unit_class]
    unit_class = unit_class.astype(steps.obs.unit_class.dtype)
    return steps.replace(obs=steps.obs.replace(unit_class=unit_class, avail=avail))


def sharing_job(arm: str, n_groups: int, args: dict[str, Any]) -> UpdateJob:
    """Compile the update of an arm, and check that it learns."""
    sizes = (f"num_envs={args['envs']}", f"rollout_length={args['rows']}")
    words = ("network=gru", *sizes, *PHASE, *ARMS[arm])
    spec = grouped_spec(n_groups)
    system = u_mappo.make(spec, load_config("u_mappo", words))
    timesteps = grouped_timesteps(spec, args["envs"], args["rows"])

    @jax.jit
    def start(key: jax.Array, offset: Any) -> Any:
        return collect(spec, system, key, offset, timesteps)

    key = jax.random.key(0)
    offset = random_offset(jax.eval_shape(system.init, key).params)
    return update_job(f"{arm}, {n_groups} groups", system, *start(key, offset))


def run_arms(args: dict[str, Any]) -> dict[str, Any]:
    """Measure all arms at all numbers of groups, print a table, and return the record."""
    rows, record = [], {}
    for n_groups in args["groups"]:
        jobs = {arm: sharing_job(arm, n_groups, args) for arm in ARMS}
        times = time_each({a: job.call for a, job in jobs.items()}, args["repeats"])
        base = times["unified actions"].best
        record[n_groups] = {
            arm: {
                "update_ms": 1e3 * times[arm].best,
                "ratio": times[arm].best / base,
                "noise": times[arm].noise,
                **job.costs(),
            }
            for arm, job in jobs.items()
        }
        for arm, cost in record[n_groups].items():
            sizes = n_groups, grouped_spec(n_groups).n_actions, arm
            programs = cost["parameters"], cost["flops"] / 1e6
            memory = cost["temp_bytes"] / 2**20
            rows.append([*sizes, *programs, memory, cost["update_ms"], cost["ratio"]])
    print(markdown_table(HEADER, rows))
    return record
