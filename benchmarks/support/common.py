"""Shared code of the benchmarks: interleaved timing, compiled memory, records and tables.

Interleaving: the calls of baseline and candidate are interleaved (A B B A), so a drift of the
machine affects both.

Clock: on a CPU backend, the CPU time of the process over all its threads, because other processes
make wall time noisy. On an accelerator, wall time. A benchmark of how well cores are used takes
wall time on every backend and needs an idle machine.

Ratio: the minimum of the baseline over the minimum of the candidate. The first and the second half
of each side's samples are compared with each other (A/A noise). If they differ by more than
``NOISE_LIMIT``, the ratio is not trusted.

Sample: as many calls as fill ``SAMPLE_SECONDS``. The kernel adds the CPU time of other threads in
ticks of several milliseconds. The minimum of many short samples would be one that missed a tick.
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
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import jax.numpy as jnp

from jmarl.config import check
from jmarl.results.files import replace_file


Row = dict[str, Any]

UNFINISHED = "unfinished"
"""Entry of a record that lists what is left to measure; it has no results until that is empty."""
NOISE_LIMIT = 0.10
SAMPLE_SECONDS = 0.1
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_Name = TypeVar("_Name", bound=Hashable)


def _git(*args: str) -> str:
    """Return the output of a git command, or an empty string if it fails."""
    command = ["git", *args]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


# Read at import, because a commit may be made while a benchmark runs.
COMMIT = _git("rev-parse", "HEAD")
"""Commit of the code."""
DIRTY = bool(
    _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":/!results")
)
"""True if tracked files outside of ``results`` differ from ``COMMIT``."""


class Timing(NamedTuple):
    """Seconds per call, over the samples of one side."""

    cpu_min: float
    cpu_median: float
    wall_min: float
    wall_median: float
    noise: float
    """Relative difference between the minima of the first and the second half (A/A)."""
    by_wall: bool
    """True if ``best`` and ``noise`` are of wall time, False if of CPU time."""

    @property
    def best(self) -> float:
        """Minimum on the clock of the measurement."""
        return self.wall_min if self.by_wall else self.cpu_min


class PairTiming(NamedTuple):
    """Timings of two interleaved callables."""

    baseline: Timing
    candidate: Timing
    ratio: float
    """Baseline time over candidate time: above 1, the candidate is faster."""
    noise: float
    """The larger A/A noise of the two."""

    @property
    def trusted(self) -> bool:
        """False if the A/A noise is too large to quote the ratio."""
        return self.noise <= NOISE_LIMIT


def uses_cpu_clock() -> bool:
    """Return True if the clock is the CPU time of the process: on the CPU backend."""
    return jax.default_backend() == "cpu"


def time_pair(
    baseline: Callable[[], Any],
    candidate: Callable[[], Any],
    repeats: int = 10,
    attempts: int = 1,
    *,
    wall: bool = False,
) -> PairTiming:
    """Time two calls without arguments, interleaved A B B A, after a warm-up of each.

    Args:
        baseline: First call. It returns any pytree of arrays, which is waited for.
        candidate: Second call, in the same form.
        repeats: Number of samples per side, rounded up to an even number.
        attempts: Maximal number of rounds of ``repeats``. A further round is added while
            the noise is too large, and all samples are evaluated together.
        wall: Use wall time on every backend.
    """
    sides = [(call, _calls_per_sample(call)) for call in (baseline, candidate)]
    samples = [[], []]
    for _ in range(attempts):
        _add_samples(sides, samples, repeats)
        a = _summarize(samples[0], wall)
        b = _summarize(samples[1], wall)
        pair = PairTiming(a, b, ratio=a.best / b.best, noise=max(a.noise, b.noise))
        if pair.trusted:
            break
    return pair


def time_each(
    calls: Mapping[_Name, Callable[[], Any]], repeats: int = 10, *, wall: bool = False
) -> dict[_Name, Timing]:
    """Time several calls, interleaved A B C C B A; arguments as for ``time_pair``."""
    sides = [(call, _calls_per_sample(call)) for call in calls.values()]
    samples = [[] for _ in sides]
    _add_samples(sides, samples, repeats)
    timings = [_summarize(rows, wall) for rows in samples]
    return dict(zip(calls, timings, strict=True))


def _add_samples(
    sides: Sequence[tuple[Callable[[], Any], int]],
    samples: Sequence[list[tuple[float, float]]],
    repeats: int,
) -> None:
    """Add ``repeats`` samples to each side, rounded up to an even number, back and forth."""
    order = range(len(sides))
    for side in (*order, *reversed(order)) * max(1, (repeats + 1) // 2):
        call, calls = sides[side]
        samples[side].append(_sample(call, calls))


def ratio_text(pair: PairTiming) -> str:
    """Return the ratio as text, or the noise if the ratio is not trusted."""
    if not pair.trusted:
        return f"withheld, A/A noise {pair.noise:.0%}"
    wall = pair.baseline.wall_min / pair.candidate.wall_min
    noise = f"A/A noise {pair.noise:.1%}"
    return f"{pair.ratio:.1f} times (by wall time {wall:.1f}; {noise})"


def time_call(
    call: Callable[[], Any], repeats: int = 10, *, wall: bool = False
) -> Timing:
    """Time one call by itself. A quoted ratio needs ``time_pair``."""
    calls = _calls_per_sample(call)
    samples = [_sample(call, calls) for _ in range(max(2, repeats))]
    return _summarize(samples, wall)


def _calls_per_sample(call: Callable[[], Any]) -> int:
    """Return the number of calls that fill a sample, after a warm-up call."""
    jax.block_until_ready(call())
    _, wall = _sample(call, 1)
    if wall < SAMPLE_SECONDS:
        # A short call is easily disturbed, so take the minimum of three.
        wall = min(_sample(call, 1)[1] for _ in range(3))
    return math.ceil(SAMPLE_SECONDS / max(wall, 1e-6))


def _sample(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Return the mean CPU and wall seconds of a call."""
    cpu_start = time.process_time()
    wall_start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(call())
    cpu = time.process_time() - cpu_start
    wall = time.perf_counter() - wall_start
    return cpu / calls, wall / calls


def _summarize(samples: Sequence[tuple[float, float]], by_wall: bool) -> Timing:
    cpu, wall = zip(*samples, strict=True)
    by_wall = by_wall or not uses_cpu_clock()
    clock = wall if by_wall else cpu
    # Halves in time, not even and odd samples. In A B B A a sample follows its own side
    # or the other one in turn, and that alone changes its time.
    half = len(clock) // 2
    early = min(clock[:half])
    late = min(clock[half:])
    return Timing(
        cpu_min=min(cpu),
        cpu_median=statistics.median(cpu),
        wall_min=min(wall),
        wall_median=statistics.median(wall),
        noise=abs(early - late) / min(early, late),
        by_wall=by_wall,
    )


def compile_for(
    function: Callable, *args: Any, options: dict[str, Any] | None = None
) -> Any:
    """Compile a function for some arguments; return the XLA executable."""
    return jax.jit(function).lower(*args).compile(options)


def temp_bytes(executable: Any) -> int:
    """Return the temporary memory that XLA plans, without arguments and results."""
    return int(executable.memory_analysis().temp_size_in_bytes)


def flops(executable: Any) -> float:
    """Return XLA's number of floating-point operations. The body of a loop counts once."""
    analysis = executable.cost_analysis()
    if isinstance(analysis, list):
        analysis = analysis[0]
    return float(analysis.get("flops", float("nan")))


def count_parameters(params: Any) -> int:
    """Return the number of parameters in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def all_changed(before: Any, after: Any) -> bool:
    """Return True if every parameter array has changed and is finite."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(bool(jnp.any(a != b) and jnp.all(jnp.isfinite(b))) for a, b in pairs)


def use_one_core() -> None:
    """Keep this process and its children on one core; call it before JAX's backend starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def require(condition: bool, message: str) -> None:
    """Exit with this message and exit code 1 unless the condition holds."""
    if not condition:
        raise SystemExit(message)


def environment_record(*, wall: bool = False) -> dict[str, Any]:
    """Return the circumstances of a run: command, commit, host, device and clock."""
    by_cpu = uses_cpu_clock() and not wall
    clock = {"clock": "process cpu" if by_cpu else "wall"}
    return host_record() | device_record() | clock


def host_record() -> dict[str, Any]:
    """Return the circumstances that do not need JAX's backend."""
    return {
        "command": _command(),
        "commit": COMMIT,
        "dirty": DIRTY,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu_count": _cpu_count(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def device_record() -> dict[str, Any]:
    """Return the circumstances that need JAX's backend.

    On a GPU, initializing the backend reserves memory of the device.
    """
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": _cpu_model() if device.platform == "cpu" else device.device_kind,
        "device_count": jax.device_count(),
    }


def write_json(path: str | Path, obj: dict[str, Any], *, wall: bool = False) -> None:
    """Write a record, with ``environment_record`` unless it has an ``environment``.

    Missing folders are created. The file is replaced atomically.
    """
    if "environment" not in obj:
        obj = {"environment": environment_record(wall=wall), **obj}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(obj, indent=1, default=float) + "\n")


def parse_arguments(
    defaults: dict[str, Any], argv: Sequence[str] | None = None
) -> dict[str, Any]:
    """Parse ``key=value`` arguments.

    Args:
        defaults: Value of each key. It also sets the type. A tuple is a comma-separated
            list.
        argv: Arguments; those of the process by default.

    Returns:
        The value of every key.

    Raises:
        SystemExit: With exit code 2 after a line on stderr, if a key is unknown. The line
            names the nearest key.
        ConfigError: If a value must be true or false, and is neither.
    """
    values = dict(defaults)
    for word in sys.argv[1:] if argv is None else argv:
        key, _, text = word.partition("=")
        if key not in defaults:
            _exit_unknown(key, defaults)
        if isinstance(defaults[key], bool):
            check(text.lower() in WORDS, key, text, "must be true or false")
        values[key] = _cast(defaults[key], text)
    return values


def _exit_unknown(key: str, keys: Collection[str]) -> NoReturn:
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(keys)}"
    print(f"unknown argument {key!r}; {hint}", file=sys.stderr)
    raise SystemExit(2)


def _cast(default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return tuple(type(default[0])(item) for item in text.split(",") if item)
    if isinstance(default, bool):
        return WORDS[text.lower()]
    return type(default)(text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table. Floats have three significant digits."""
    rule = ["---"] * len(header)
    body = [[_cell(x) for x in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body))


def show(rows: Iterable[Row]) -> list[Row]:
    """Return rows with equal keys as a list, and print each as soon as it is measured."""
    found: list[Row] = []
    for row in rows:
        lines = markdown_table(list(row), [list(row.values())]).splitlines()
        print(*(lines[2:] if found else lines), sep="\n", flush=True)
        found.append(row)
    if found:
        print()
    return found


def show_and_record(args: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Print rows as a table; write them with the arguments if ``out`` is given."""
    shown = show(rows)
    if args["out"]:
        write_json(args["out"], {"arguments": args, "rows": shown})


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _command() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else ""
    program = f"-m {name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", program, *sys.argv[1:]])


def _cpu_count() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "cpu"
