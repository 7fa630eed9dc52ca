"""Runs of the command line on two processes with two CPU devices each."""

import os
import pathlib
import socket
import subprocess
import sys

from tools.compare_runs import differences


ROOT = pathlib.Path(__file__).parents[2]
TINY = (
    "env=probe_cue",
    "num_envs=16",
    "rollout_length=5",
    "seed=3",
    "eval.every=400",
    "eval.episodes=8",
    "eval.absolute_factor=1",
    "arch.updates_per_chunk=5",
    "arch.compile_cache=",
)
GRU = ("network=gru", "network.torso=[8]", "network.head=[8]", "network.memory_width=8")
PHASE = ("system.epochs=2", "system.minibatches=2")
SYSTEMS = {
    "mappo": (*GRU, *PHASE),
    "mam_ppo": ("network.embed_dim=8", "network.d_state=4", *PHASE),
    "qmix": (
        *GRU,
        "system.batch_size=8",
        "system.replay_size=120",
        "system.gradient_steps=2",
    ),
}
ROWS = 80
"""Rows of an update."""


def arguments(system, folder, updates=20):
    return (
        *TINY,
        *SYSTEMS[system],
        f"total_timesteps={updates * ROWS}",
        f"run_dir={folder}",
    )


def start(words, *, devices, **variables):
    """Start ``jmarl train`` in another process."""
    flags = os.environ["XLA_FLAGS"].split()
    kept = [flag for flag in flags if "device_count" not in flag]
    env = os.environ | {
        "XLA_FLAGS": " ".join(kept),
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "jmarl", "train", *words],
        env=env | {"PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_pair(words):
    """Start two processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    words = (*words, "distributed=true")
    return [
        start(words, devices=2, JAX_PROCESS_ID=str(index), **variables)
        for index in range(2)
    ]


def finish(processes, timeout_s=600):
    """Return the exit code, the output and the errors of each process."""
    results = []
    for process in processes:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        results.append((process.returncode, output, errors))
    return results


def run_pair(words):
    return finish(start_pair(words))


def run_alone(words):
    """Run one process with four devices."""
    return finish([start(words, devices=4)])


def assert_equal(folder, other):
    assert differences(folder, other) == []
