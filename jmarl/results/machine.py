"""Versions, devices and cores of a process, for records of what it computed.

JAX is imported when devices are read, not before.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import jmarl


PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "distrax",
    "jaxmarl",
    "jumanji",
    "orbax-checkpoint",
    "hydra-core",
    "numpy",
    "wandb",
)


def package_versions() -> dict[str, str]:
    """Return the versions of the installed ``PACKAGES``."""
    installed = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def versions() -> dict[str, Any]:
    """Return packages, devices, commit and command of this process."""
    import jax

    moved = ("run_dir=", "resume=")
    return {
        "jmarl": jmarl.__version__,
        "python": platform.python_version(),
        **package_versions(),
        "backend": jax.default_backend(),
        "platform": platform.platform(),
        "device_count": jax.device_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "commit": _git_commit(),
        "command": [a for a in sys.argv[1:] if not a.startswith(moved)],
    }


def environment_record(now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the circumstances of a record: this command, and where its numbers come from.

    Args:
        now: ``versions`` of the process that computed the numbers.
    """
    return {
        "command": shlex.join(["jmarl", *sys.argv[1:]]),
        "commit": now["commit"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu_count": cores(),
        "python": now["python"],
        "jax": now["jax"],
        "platform": now["backend"],
        "device": now["device_kind"],
        "device_count": now["device_count"],
    }


def cores() -> int:
    """Return the number of available cores, from CPU affinity and the control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(available, int(quota) // int(period))
    return available


def _git_commit() -> str:
    """Return the commit of a checkout, with ``-dirty`` if changed; empty if there is none."""
    root = pathlib.Path(jmarl.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    options = ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", "-C", str(root), "describe", *options]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
