"""What the benchmarks share: interleaved timing, compiled memory, the record of a run, tables.

Protocol. Baseline and candidate run interleaved (A B B A), so that a drift of the machine hits
both. The clock is the process's CPU time over all threads on a CPU backend, where other
processes make wall time noise, and wall time on an accelerator; a benchmark of how well cores
are used asks for wall time everywhere, and needs an idle machine. A ratio is taken between
minima, and the two halves of each side are compared with each other: where they disagree by
more than ``NOISE_LIMIT``, the ratio is flagged. A sample is as many calls as fill ``SAMPLE_SECONDS``: the
kernel adds the time of other threads to the process's in ticks of some milliseconds, so that
the least of many short samples would be one in which a tick fell outside.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


NOISE_LIMIT = 0.10
SAMPLE_SECONDS = 0.1


def _git(*args: str) -> str:
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


COMMIT = _git("rev-parse", "HEAD")
DIRTY = bool(
    _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":/!results")
)
"""As a benchmark starts: its code is read once, and a commit may be made while it runs."""


class Timing(NamedTuple):
    """Seconds a call, over the repeats of one side."""

    cpu_min: float
    cpu_median: float
    wall_min: float
    wall_median: float
    noise: float
    """Relative difference between the minima of the first and of the second half of the repeats (A/A)."""
    by_wall: bool
    """Whether ``best`` and ``noise`` are of wall time."""

    @property
    def best(self) -> float:
        """The minimum on the clock that counts."""
        return self.wall_min if self.by_wall else self.cpu_min


class PairTiming(NamedTuple):
    """Two callables timed against each other."""

    baseline: Timing
    candidate: Timing
    ratio: float
    """Baseline time over candidate time: above 1, the candidate is faster."""
    noise: float

    @property
    def trusted(self) -> bool:
        """False where the A/A noise is too large for the ratio to be quoted."""
        return self.noise <= NOISE_LIMIT


def uses_cpu_clock() -> bool:
    """Whether process CPU time is the clock: on the CPU backend only."""
    return jax.default_backend() == "cpu"


def timed_pair(
    baseline: Callable[[], Any],
    candidate: Callable[[], Any],
    repeats: int = 10,
    attempts: int = 1,
    *,
    wall: bool = False,
) -> PairTiming:
    """Time two calls without arguments, interleaved A B B A, after some warm-up calls of each.

    ``repeats`` is the number of samples of each side, rounded up to an even number; while the
    noise is too large, up to ``attempts`` such rounds are taken together. What a call returns is
    waited for, so it may be any pytree of arrays. ``wall`` asks for wall time on any backend.
    """
    sides = tuple((call, _calls(call)) for call in (baseline, candidate))
    samples: tuple[list, list] = ([], [])
    for _ in range(attempts):
        for side in (0, 1, 1, 0) * max(1, (repeats + 1) // 2):
            samples[side].append(_sample(*sides[side]))
        a, b = (_summary(side, wall) for side in samples)
        pair = PairTiming(a, b, ratio=a.best / b.best, noise=max(a.noise, b.noise))
        if pair.trusted:
            break
    return pair


def ratio_text(pair: PairTiming) -> str:
    """The ratio in words, or why there is none."""
    if not pair.trusted:
        return f"withheld, A/A noise {pair.noise:.0%}"
    wall = pair.baseline.wall_min / pair.candidate.wall_min
    return (
        f"{pair.ratio:.1f} times (by wall time {wall:.1f}; A/A noise {pair.noise:.1%})"
    )


def timed(call: Callable[[], Any], repeats: int = 10, *, wall: bool = False) -> Timing:
    """Time one call on its own; use ``timed_pair`` for anything that is quoted as a ratio."""
    calls = _calls(call)
    return _summary([_sample(call, calls) for _ in range(max(2, repeats))], wall)


def _calls(call: Callable[[], Any]) -> int:
    """How many calls make a sample, after one to warm up."""
    jax.block_until_ready(call())
    wall = _sample(call, 1)[1]
    if (
        wall < SAMPLE_SECONDS
    ):  # the shorter, the more likely that something else was in it
        wall = min(_sample(call, 1)[1] for _ in range(3))
    return math.ceil(SAMPLE_SECONDS / max(wall, 1e-6))


def _sample(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(call())
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def _summary(samples: Sequence[tuple[float, float]], by_wall: bool) -> Timing:
    cpu, wall = zip(*samples, strict=True)
    by_wall = by_wall or not uses_cpu_clock()
    clock = wall if by_wall else cpu
    # Halves in time, not even and odd repeats: those follow the other side or their own, which differs by itself.
    early, late = min(clock[: len(clock) // 2]), min(clock[len(clock) // 2 :])
    noise = abs(early - late) / min(early, late)
    return Timing(
        min(cpu),
        statistics.median(cpu),
        min(wall),
        statistics.median(wall),
        noise,
        by_wall,
    )


def compiled(
    function: Callable, *args: Any, options: dict[str, Any] | None = None
) -> Any:
    """The executable for these arguments: callable with them, and asked by the functions below."""
    return jax.jit(function).lower(*args).compile(options)


def temp_bytes(executable: Any) -> int:
    """Temporary memory that XLA plans for a compiled function, arguments and results apart."""
    return int(executable.memory_analysis().temp_size_in_bytes)


def flops(executable: Any) -> float:
    """FLOPs by XLA's own count; a loop's body is counted once."""
    analysis = executable.cost_analysis()
    return float(
        (analysis[0] if isinstance(analysis, list) else analysis).get(
            "flops", float("nan")
        )
    )


def count(params: Any) -> int:
    """Numbers in a tree of parameters, or of their shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def moved(before: Any, after: Any) -> bool:
    """Whether every parameter array changed and is finite: a gradient step happened."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(bool(jnp.any(a != b) and jnp.all(jnp.isfinite(b))) for a, b in pairs)


def require(law: bool, line: str) -> None:
    """End the program with this line (exit status 1) unless the law holds."""
    if not law:
        raise SystemExit(line)


def environment_record(*, wall: bool = False) -> dict[str, Any]:
    """What a reader needs to repeat a run: command, commit, device, versions, load, and the clock that counted."""
    return (
        host_record()
        | device_record()
        | {"clock": "process cpu" if uses_cpu_clock() and not wall else "wall"}
    )


def host_record() -> dict[str, Any]:
    """The part of the record that leaves JAX's backend alone."""
    return {
        "command": _command(),
        "commit": COMMIT,
        "dirty": DIRTY,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu_count": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def device_record() -> dict[str, Any]:
    """The part of the record that only an initialized backend knows; on a GPU asking reserves its memory."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": _cpu_model() if device.platform == "cpu" else device.device_kind,
        "device_count": jax.device_count(),
    }


def write_json(path: str | Path, obj: dict[str, Any], *, wall: bool = False) -> None:
    """Write ``obj``, under ``environment`` the record of this run unless it brings one; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = (
        obj
        if "environment" in obj
        else {"environment": environment_record(wall=wall), **obj}
    )
    path.write_text(json.dumps(record, indent=1, default=float) + "\n")


def arguments(
    defaults: dict[str, Any], argv: Sequence[str] | None = None
) -> dict[str, Any]:
    """Read ``key=value`` arguments, each cast to the type of its default; a tuple is a comma list.

    An unknown key ends the program with one line that names the nearest one (exit status 2).
    """
    values = dict(defaults)
    for word in sys.argv[1:] if argv is None else argv:
        key, _, text = word.partition("=")
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(defaults)}"
            )
            print(f"unknown argument {key!r}; {hint}", file=sys.stderr)
            raise SystemExit(2)
        values[key] = _cast(defaults[key], text)
    return values


def _cast(default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return tuple(type(default[0])(item) for item in text.split(",") if item)
    if isinstance(default, bool):
        return text.lower() in ("1", "true", "yes")
    return type(default)(text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table; floats keep three significant digits."""
    lines = [header, ["---"] * len(header), *([_cell(x) for x in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _command() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", program, *sys.argv[1:]])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (
            line.partition(":")[2].strip()
            for line in lines
            if line.startswith("model name")
        ),
        "cpu",
    )
