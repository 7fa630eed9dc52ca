"""Devices as XLA sees them, from a description: nothing can run on them, only be compiled."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from jmarl.config import ConfigError, RunConfig
from jmarl.config.compose import load_config
from jmarl.forecast.targets import Target
from jmarl.training.build import build_run
from jmarl.training.precision import check_devices
from jmarl.training.programs import Programs, State, stage_programs, state_shapes


MODULES = {"gpu": "jax_plugins.xla_cuda12", "tpu": "libtpu"}
"""Module with the compiler of each platform."""


class Described(NamedTuple):
    """Programs of a run for devices that are not there."""

    programs: Programs
    """Programs of the last stage."""
    shapes: State
    """State of that stage, as shapes with shardings."""
    mesh: Mesh
    """Devices that share the environments."""


def load_config_for(target: Target, system: str, overrides: Sequence[str]) -> RunConfig:
    """Compose the configuration of a run for a target, without loggers.

    Args:
        target: Devices.
        system: The system.
        overrides: Overrides, as on its command line.

    Raises:
        ConfigError: If the configuration is invalid.
    """
    with target.tracing():
        return load_config(system, [*overrides, "logger=none"])


@contextmanager
def described_programs(config: RunConfig, target: Target) -> Iterator[Described]:
    """Return programs to trace in this context, which sets the platform and the mesh.

    Args:
        config: Configuration, composed for the platform of the target.
        target: Devices.

    Raises:
        ConfigError: As ``described_devices``, or if the target lacks the precision of the run.
    """
    devices = described_devices(target)
    check_devices(config.precision, devices)
    with target.tracing():
        programs = stage_programs(build_run(config))
        shapes = state_shapes(config, programs, devices)
        mesh = jax.tree.leaves(shapes.best)[0].sharding.mesh
        with jax.set_mesh(mesh):
            yield Described(programs, shapes, mesh)


def described_devices(target: Target) -> Sequence[Any]:
    """Return the devices of a target.

    Raises:
        ConfigError: If the compiler of the platform is not installed, or XLA knows no such
            devices.
    """
    try:
        compiler = importlib.import_module(MODULES[target.platform])
    except ImportError:
        extra = f"pip install 'jmarl[plan-{target.platform}]'"
        text = f"needs XLA's compiler for this platform; {extra}"
        raise ConfigError(f"target={target.name}: {text}") from None
    try:
        found = _gpus(target) if target.platform == "gpu" else _tpus(target, compiler)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        text = f"XLA does not know these devices ({reason})"
        raise ConfigError(f"target={target.name}: {text}") from None
    return found[: target.count]


def _gpus(target: Target) -> Sequence[Any]:
    jax.devices()  # registers the plugin
    described = topologies.get_topology_desc(
        topology_name=target.topology,
        platform="cuda",
        target_config=target.description,
        topology=target.topology,
    )
    return described.devices


def _tpus(target: Target, compiler: Any) -> Sequence[Any]:
    # Nothing runs on a TPU, so several processes may load the compiler at once, and it needs no
    # answers of a TPU host, which it would otherwise miss with long messages.
    with _variables(
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="none",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_LIBRARY_PATH=compiler.get_library_path(),
    ):
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=target.topology
        )
    return described.devices


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    """Set environment variables that are not set."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
