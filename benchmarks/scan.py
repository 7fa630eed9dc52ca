"""Time and temporary memory of the selective scan: the form ``xla`` against the other forms.

    python -m benchmarks.scan [L=5,10,20,64,128] [B=256] [D=128] [N=16] [repeats=10]
        [out=results/scan.json]

Options:

* ``L``: lengths of the sequence.
* ``B``, ``D``, ``N``: batch, channels and states.
* ``repeats``: samples per time; half as many for lengths above 20, but at least 4.
* ``out``: JSON file of the record; none by default.

Method: forward and backward pass together, with all six gradients (u, dt, A, B, C, D), in float32.
``assoc`` is ``jax.lax.associative_scan`` over the discretized (B, L, D, N) arrays. ``checkpointed``
is a plain scan that recomputes each step in the backward pass. ``ref`` is the reference
implementation. Every form is compared with the float64 reference before it is timed.

Output: a table of times, memory and errors, with ratios to ``xla``. A ratio with too much noise is
withheld.

Exit codes: 0 if all forms equal float64 within the bounds, 1 if not, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.support.common import (
    PairTiming,
    Timing,
    compile_for,
    markdown_table,
    parse_arguments,
    temp_bytes,
    time_pair,
    write_json,
)
from jmarl.cli.process import exit_code
from jmarl.ssm import selective_scan, selective_step


DEFAULTS: dict[str, Any] = {
    "L": (5, 10, 20, 64, 128),
    "B": 256,
    "D": 128,
    "N": 16,
    "repeats": 10,
    "out": "",
}
BOUNDS = {"y": 2e-6, "gradients": 5e-6}
"""Largest error relative to the largest magnitude, against float64."""
BASELINES = ("assoc", "checkpointed", "ref")
HEADER = (
    "L",
    "form",
    "cpu ms",
    "wall ms",
    "temp MB",
    "cpu / xla",
    "wall / xla",
    "memory / xla",
    "error y",
    "error grad",
)


class Form(NamedTuple):
    """One compiled implementation and its errors."""

    name: str
    executable: Any
    temp: int
    """Temporary memory in bytes."""
    error_y: float
    error_gradients: float

    @property
    def exact(self) -> bool:
        """True if the results equal float64 within the bounds."""
        y_exact = self.error_y <= BOUNDS["y"]
        return y_exact and self.error_gradients <= BOUNDS["gradients"]


def checkpointed_scan(u, dt, A, B, C, D):
    """Return the outputs of a plain scan that recomputes each step in its backward pass."""

    @jax.checkpoint
    def step(h, token):
        u, dt, B, C = token
        y, h = selective_step(h, u, dt, A, B, C, D)
        return h, y

    h0 = jnp.zeros((u.shape[0], *A.shape), u.dtype)
    tokens = jax.tree.map(lambda x: x.swapaxes(0, 1), (u, dt, B, C))  # [L, B, ...]
    _, y = jax.lax.scan(step, h0, tokens)
    return y.swapaxes(0, 1)


def forward_backward(name: str) -> Callable:
    """Return a function of inputs and cotangent to the outputs and six gradients."""

    def scan(*inputs):
        if name == "checkpointed":
            return checkpointed_scan(*inputs)
        y, _ = selective_scan(*inputs, impl=name)
        return y

    def call(inputs, cotangent):
        y, vjp = jax.vjp(scan, *inputs)
        return y, vjp(cotangent)

    return call


def make_inputs(batch: int, length: int, channels: int, states: int):
    """Draw the inputs of a newly initialized block, and a cotangent of its outputs.

    A is -(1..N), and dt lies between 1e-3 and 0.1.
    """
    rng = np.random.default_rng(length)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    log_dt = rng.uniform(np.log(1e-3), np.log(0.1), (batch, length, channels))
    dt = np.exp(log_dt).astype(np.float32)
    rates = -np.arange(1.0, states + 1, dtype=np.float32)
    A = np.tile(rates[:, None], (1, channels))
    u = normal(batch, length, channels)
    B = normal(batch, length, states)
    C = normal(batch, length, states)
    D = np.ones(channels, np.float32)
    cotangent = normal(batch, length, channels)
    return (u, dt, A, B, C, D), cotangent


def float64_results(inputs, cotangent):
    """Compute outputs and gradients in float64, with the plain scan."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (inputs, cotangent))
        return jax.tree.map(np.asarray, jax.jit(forward_backward("ref"))(*wide))


def make_form(name: str, inputs, cotangent, exact) -> Form:
    """Compile a form and compute its errors."""
    executable = compile_for(forward_backward(name), inputs, cotangent)

    def relative_error(x, expected) -> float:
        return float(np.abs(x - expected).max() / np.abs(expected).max())

    results = executable(inputs, cotangent)
    error_y, error_gradients = jax.tree.map(relative_error, results, exact)
    temp = temp_bytes(executable)
    return Form(name, executable, temp, error_y, max(error_gradients))


def measure(
    length: int, args: dict[str, Any]
) -> tuple[dict[str, Form], dict[str, PairTiming]]:
    """Check every form at one length, then time each baseline against ``xla``."""
    inputs, cotangent = make_inputs(args["B"], length, args["D"], args["N"])
    exact = float64_results(inputs, cotangent)
    inputs, cotangent = jax.tree.map(jnp.asarray, (inputs, cotangent))
    names = ("xla", *BASELINES)
    forms = {name: make_form(name, inputs, cotangent, exact) for name in names}
    calls = {
        name: partial(form.executable, inputs, cotangent)
        for name, form in forms.items()
    }
    repeats = args["repeats"] if length <= 20 else max(4, args["repeats"] // 2)
    pairs = {
        name: time_pair(calls[name], calls["xla"], repeats, attempts=6)
        for name in BASELINES
    }
    return forms, pairs


def table_rows(
    length: int, forms: dict[str, Form], pairs: dict[str, PairTiming]
) -> list[list[Any]]:
    """Return one row per form. A ratio with too much A/A noise is withheld."""
    rows = []
    for name, pair in pairs.items():
        wall_ratio = pair.baseline.wall_min / pair.candidate.wall_min
        ratios: list[Any] = [pair.ratio, wall_ratio]
        if not pair.trusted:
            ratios = [f"noise {pair.noise:.0%}"] * 2
        memory = forms[name].temp / forms["xla"].temp
        rows.append(_row(length, forms[name], pair.baseline, [*ratios, memory]))
    candidates = [pair.candidate for pair in pairs.values()]
    best = min(candidates, key=lambda timing: timing.best)
    rows.append(_row(length, forms["xla"], best, [1.0, 1.0, 1.0]))
    return rows


def _row(length: int, form: Form, timing: Timing, ratios: Sequence[Any]) -> list[Any]:
    return [
        length,
        form.name,
        timing.cpu_min * 1e3,
        timing.wall_min * 1e3,
        form.temp / 2**20,
        *ratios,
        f"{form.error_y:.1e}",
        f"{form.error_gradients:.1e}",
    ]


def cell(
    length: int, forms: dict[str, Form], name: str, pair: PairTiming
) -> dict[str, Any]:
    """Return the record of one comparison."""
    baseline = forms[name]
    xla = forms["xla"]
    return {
        "L": length,
        "baseline": name,
        "ratio": pair.ratio,
        "noise": pair.noise,
        "trusted": pair.trusted,
        "baseline_temp_bytes": baseline.temp,
        "xla_temp_bytes": xla.temp,
        "baseline_s": pair.baseline._asdict(),
        "xla_s": pair.candidate._asdict(),
        "errors": {
            form.name: (form.error_y, form.error_gradients) for form in (baseline, xla)
        },
    }


def main() -> int:
    args = parse_arguments(DEFAULTS)
    cells = []
    wrong = []
    print(markdown_table(HEADER, []))
    for length in args["L"]:
        forms, pairs = measure(length, args)
        table = markdown_table(HEADER, table_rows(length, forms, pairs))
        _, _, body = table.split("\n", 2)
        print(body, flush=True)
        inexact = [form for form in forms.values() if not form.exact]
        wrong += [f"{form.name} at L={length}" for form in inexact]
        cells += [cell(length, forms, name, pair) for name, pair in pairs.items()]
    if wrong:
        print(f"not equal to float64 within {BOUNDS}: {', '.join(wrong)}")
    else:
        print(f"all forms equal float64 within {BOUNDS}")
    if args["out"]:
        record = {"arguments": args, "bounds": BOUNDS, "cells": cells}
        write_json(args["out"], {**record, "disagree": wrong})
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(exit_code(main))
