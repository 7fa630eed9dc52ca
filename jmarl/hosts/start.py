"""Connection of the processes of a run, by JAX's own runtime.

It must happen before JAX looks for devices. The processes are found from the variables
``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``. Without them, JAX finds
the processes of a Slurm job step, of Open MPI, of a Kubernetes job and of a TPU pod slice.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from jmarl.config.errors import ConfigError
from jmarl.hosts import process_group, watch
from jmarl.hosts.process_group import Process


ADDRESS, COUNT, INDEX = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
MAX_PROCESSES = 2**16
HEARTBEAT_TIMEOUT_S = 40
"""Seconds without a heartbeat after which JAX ends all processes of a run."""
SHUTDOWN_TIMEOUT_S = 60
"""Seconds that a process waits for the others at its end."""


def start(enabled: bool) -> None:
    """Connect this process to the others of its run, unless that has happened already.

    Processes other than 0 print nothing to standard output from then on.

    Args:
        enabled: Value of the key ``distributed``.

    Raises:
        ConfigError: If the processes cannot be found, or a variable is invalid.
    """
    import jax

    if not enabled or jax.distributed.is_initialized():
        return
    given = _read_variables()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would handle SIGTERM in place of the run
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **given,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise _no_connection(error) from None
    process = Process(jax.process_index(), jax.process_count())
    process_group.register(process)
    watch.start()
    if not process_group.is_writer():
        sys.stdout = open(os.devnull, "w")


def _read_variables() -> dict[str, Any]:
    """Return the arguments of ``jax.distributed.initialize`` from the three variables."""
    values = {name: os.environ.get(name, "") for name in (ADDRESS, COUNT, INDEX)}
    if not (values[COUNT] or values[INDEX]):
        return {}
    for name, value in values.items():
        if not value:
            fix = f"set {ADDRESS}=<host>:<port>, {COUNT} and {INDEX}"
            raise ConfigError(f"distributed=true: {name} is not set; {fix}")
    address = values[ADDRESS]
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise ConfigError(f"{ADDRESS}={address}: must be <host>:<port> of process 0")
    count = _read_number(COUNT, 1, MAX_PROCESSES)
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": _read_number(INDEX, 0, count - 1),
        "cluster_detection_method": "deactivate",
    }


def _read_number(name: str, low: int, high: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or not low <= int(text) <= high:
        rule = f"must be an integer from {low} to {high}"
        raise ConfigError(f"{name}={text}: {rule}")
    return int(text)


def _no_connection(error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    fix = f"set {ADDRESS}=<host>:<port>, {COUNT} and {INDEX} for each process"
    return ConfigError(f"distributed=true: no connection ({reason}); {fix}")
