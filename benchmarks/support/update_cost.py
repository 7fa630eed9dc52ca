"""Update times of several systems on one environment, relative to a base system.

``UpdateJob`` has the costs of any compiled update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks.support.common import (
    all_changed,
    compile_for,
    count_parameters,
    flops,
    markdown_table,
    require,
    temp_bytes,
    time_each,
)
from jmarl import load_config
from jmarl.runs.compilation import compiler_options
from jmarl.system import Learner, System
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


COMPARED = {"mappo": ("u_mappo", "shppo", "happo"), "qmix": ("u_qmix",)}
"""Systems to compare with each base system."""
PHASE = ("system.epochs=2", "system.minibatches=2")
REPLAY = ("system.batch_size=16", "system.gradient_steps=2")


class UpdateJob(NamedTuple):
    """Compiled update of one system, after one update that changed every parameter."""

    call: Callable[[], Any]
    parameters: int
    flops: float
    """FLOPs as XLA counts them. The body of a loop counts once."""
    temp_bytes: int

    def costs(self) -> dict[str, Any]:
        """Return all fields except ``call``."""
        return {key: value for key, value in self._asdict().items() if key != "call"}


def update_job(name: str, system: System, start: Learner, experience: Any) -> UpdateJob:
    """Compile the update of a system, and check that it changes every parameter."""
    key = jax.random.key(1)
    options = compiler_options(1)
    update = compile_for(system.update, start, experience, key, options=options)
    learner, _ = update(start, experience, key)
    learned = all_changed(start.params, learner.params)
    require(learned, f"{name}: an update did not change every parameter")
    return UpdateJob(
        lambda: update(learner, experience, key),
        count_parameters(learner.params),
        flops(update),
        temp_bytes(update),
    )


def system_job(name: str, args: dict[str, Any]) -> UpdateJob:
    """Compile the update of a system with a GRU on experience of the environment."""
    rows = args["envs"] * args["rows"]
    is_replay = name in ("qmix", *COMPARED["qmix"])
    words = (*REPLAY, f"system.replay_size={4 * rows}") if is_replay else PHASE
    sizes = (f"num_envs={args['envs']}", f"rollout_length={args['rows']}")
    config = load_config(name, [f"env={args['env']}", "network=gru", *sizes, *words])
    _, env, system = build_run(config)

    @jax.jit
    def collect(key: jax.Array) -> Any:
        runner = init_runner(env, system, config.num_envs, key)
        after, experience, _ = rollout(env, system, runner, config.rollout_length, key)
        return after.learner, experience

    return update_job(name, system, *collect(jax.random.key(0)))


def run_updates(args: dict[str, Any]) -> dict[str, Any]:
    """Measure the updates of all systems, print a table, and return the record."""
    rows, record = [], {}
    for base, others in COMPARED.items():
        jobs = {name: system_job(name, args) for name in (base, *others)}
        calls = {name: job.call for name, job in jobs.items()}
        times = time_each(calls, args["repeats"])
        for name, job in jobs.items():
            milliseconds = 1e3 * times[name].best
            ratio = times[name].best / times[base].best
            record[name] = {
                "base": base,
                "update_ms": milliseconds,
                "ratio": ratio,
                "noise": times[name].noise,
                **job.costs(),
            }
            mib = job.temp_bytes / 2**20
            rows.append([name, base, milliseconds, ratio, job.parameters, mib])
    header = ["system", "base", "update, ms", "ratio", "parameters", "temporary, MiB"]
    print(f"an update on {args['env']}\n")
    print(markdown_table(header, rows))
    return record
