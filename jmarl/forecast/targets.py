"""Devices that programs can be compiled for, without having one."""

from __future__ import annotations

import functools
import math
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jmarl.config import ConfigError, suggest
from jmarl.forecast.calibration import Calibration, find_calibration
from jmarl.platforms import tracing_for


_NAME = re.compile(r"([a-z]\w*)(?::(\d+(?:x\d+)*))?")
_SIZE = {"gpu": re.compile(r"\d+"), "tpu": re.compile(r"\d+x\d+")}
PASSES = {"float32": 6, "tf32": 3, "bfloat16": 1}
"""Products of bfloat16 that XLA adds up for one matrix product on a TPU, by its precision."""
_GPU = """\
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 \
shared_memory_per_block: 49152 shared_memory_per_core: {shared} threads_per_core_limit: {threads} \
core_count: {cores} fpus_per_core: {fpus} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 \
block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: {l2} \
clock_rate_ghz: {clock_ghz} device_memory_size: {memory} shared_memory_per_block_optin: {optin} \
cuda_compute_capability {{ major: {major} minor: {minor} }} registers_per_core_limit: 65536 \
registers_per_block_limit: 65536 }} platform_name: "CUDA" \
dnn_version_info {{ major: 9 minor: 3 }} device_description_str: "{kind}"
"""
"""XLA's description of a GPU, a ``GpuTargetConfigProto`` as text."""


class Links(NamedTuple):
    """Connections between devices of one kind."""

    domain: int
    """Number of devices that fast links connect."""
    fast: float
    """Bytes per second that a device sends within a domain."""
    slow: float
    """Bytes per second that a device sends to other domains."""
    hop_s: float
    """Seconds of a message without content."""

    def reduce_seconds(self, count: float, nbytes: float, devices: int) -> float:
        """Return the time in which devices add arrays, an estimate.

        Devices add arrays within a domain, then between domains. Within a domain, a device sends
        the array about twice (reduce-scatter and all-gather), and between domains its share of it.
        Each reduction takes ``2 log2(devices)`` messages, each of at least ``hop_s``.

        Args:
            count: Number of reductions.
            nbytes: Bytes of all their results on one device.
            devices: Number of devices.
        """
        inside = min(devices, self.domain)
        domains = devices / inside
        fast = 2 * nbytes * (1 - 1 / inside) / self.fast
        slow = 2 * nbytes / inside * (1 - 1 / domains) / self.slow
        return 2 * count * math.log2(devices) * self.hop_s + fast + slow


class Target(NamedTuple):
    """A number of devices of one kind."""

    name: str
    """As given by the user, for example ``h100:8``."""
    platform: str
    """``gpu`` or ``tpu``."""
    kind: str
    count: int
    topology: str
    """TPU: name of the topology that has the devices. GPU: slices, hosts and devices."""
    description: str
    """GPU: XLA's description; empty for a TPU."""
    capability: float
    """GPU: compute capability; 0 for a TPU."""
    memory: int
    """Bytes of a device."""
    bandwidth: float
    """Bytes per second."""
    flops: dict[str, float]
    """Floating-point operations per second of matrix products, by their precision."""
    launch_s: float
    """Least time of a kernel in seconds."""
    source: str
    """Origin of bandwidth and rates: a data sheet, or a measurement."""
    links: Links
    is_measured: bool
    """Whether bandwidth and rates are those of a calibration."""
    ratios: tuple[float, ...]
    """Measured speeds of programs over their forecasts."""

    def tracing(self) -> AbstractContextManager[None]:
        """Return the context in which programs are traced for these devices."""
        return tracing_for(self.platform, self.capability)

    def rate(self, precision: str) -> float:
        """Return the floating-point operations per second of matrix products.

        Args:
            precision: Precision of a run. XLA takes float32 for TF32 on a GPU without it.
        """
        if precision in self.flops:
            return self.flops[precision]
        if self.platform == "tpu":
            return self.flops["bfloat16"] / PASSES[precision]
        return self.flops["float32"]


@functools.cache
def table() -> dict[str, Any]:
    """Return the entries of ``targets.yaml``."""
    text = Path(__file__).with_name("targets.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def find_target(name: str) -> Target:
    """Return the target of a name: ``h100``, ``h100:8``, ``v5e``, ``v5e:2x4``.

    Raises:
        ConfigError: If the device is unknown, or the number of devices is not valid.
    """
    match = _NAME.fullmatch(name)
    device, size = match.groups() if match else (name, None)
    if device not in table():
        fix = suggest(device, table(), f"expected one of {', '.join(table())}")
        raise ConfigError(f"target={name}: unknown device; {fix}")
    entry = table()[device]
    platform = "gpu" if "gpu" in entry else "tpu"
    count = math.prod(map(int, size.split("x"))) if size else 1
    if count < 1 or (size and not _SIZE[platform].fullmatch(size)):
        example = "h100:8" if platform == "gpu" else "v5e:2x4"
        fix = f"write it as in {example}"
        raise ConfigError(f"target={name}: invalid number of devices; {fix}")
    measured = find_calibration(device)
    sheet = Calibration(
        launch_s=1e-6 * entry["launch_us"],
        bandwidth=entry["bandwidth"],
        flops=entry["flops"],
        ratios=(),
        source=entry["source"],
    )
    return Target(
        name=name,
        platform=platform,
        kind=entry["kind"],
        count=count,
        topology=_topology(entry, size, count),
        description=_describe_gpu(entry) if "gpu" in entry else "",
        capability=_capability(entry) if "gpu" in entry else 0.0,
        memory=entry["memory"],
        links=_links(entry["links"]),
        is_measured=measured is not None,
        **(measured or sheet)._asdict(),
    )


def _links(entry: dict[str, float]) -> Links:
    numbers = dict(entry)
    hop_s = 1e-6 * numbers.pop("hop_us")
    return Links(hop_s=hop_s, **numbers)  # pyright: ignore[reportArgumentType]


def _topology(entry: dict[str, Any], size: str | None, count: int) -> str:
    if "gpu" in entry:
        return f"1x1x{count}"
    return f"{entry['tpu']['name']}:{size if count > 1 else entry['tpu']['chips']}"


def _capability(entry: dict[str, Any]) -> float:
    major, minor = entry["gpu"]["capability"]
    return major + minor / 10


def _describe_gpu(entry: dict[str, Any]) -> str:
    numbers = dict(entry["gpu"])
    major, minor = numbers.pop("capability")
    return _GPU.format(
        major=major,
        minor=minor,
        bandwidth=int(entry["bandwidth"]),
        memory=entry["memory"],
        kind=entry["kind"],
        **numbers,
    )
