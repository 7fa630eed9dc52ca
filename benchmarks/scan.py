"""The selective scan: time and temporary memory of ``xla`` against the other forms of one function.

    python -m benchmarks.scan [L=5,10,20,64,128] [B=256] [D=128] [N=16] [repeats=10] [out=results/scan.json]

Forward and backward together, all six gradients (u, dt, A, B, C, D), float32. Every form is first
compared with the float64 reference; the exit status is 1 where one disagrees, whatever its
speed. ``assoc`` is ``jax.lax.associative_scan`` over the discretized (B, L, D, N) arrays,
``checkpointed`` a plain scan whose step is recomputed in the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import (
    PairTiming,
    arguments,
    compiled,
    markdown_table,
    temp_bytes,
    timed_pair,
    write_json,
)
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
"""Largest error over largest magnitude, against float64."""
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
    """One implementation, compiled and checked."""

    name: str
    executable: Any
    temp: int
    error_y: float
    error_gradients: float

    @property
    def exact(self) -> bool:
        """Equal to float64 within the bounds."""
        return (
            self.error_y <= BOUNDS["y"] and self.error_gradients <= BOUNDS["gradients"]
        )


def checkpointed_scan(u, dt, A, B, C, D):
    @jax.checkpoint
    def step(h, token):
        u, dt, B, C = token
        y, h = selective_step(h, u, dt, A, B, C, D)
        return h, y

    h0 = jnp.zeros((u.shape[0], *A.shape), u.dtype)
    return jax.lax.scan(
        step, h0, jax.tree.map(lambda x: x.swapaxes(0, 1), (u, dt, B, C))
    )[1].swapaxes(0, 1)


def forward_backward(name: str):
    """The outputs and all six gradients of one form, given the cotangent of the outputs."""

    def scan(*inputs):
        return (
            checkpointed_scan(*inputs)
            if name == "checkpointed"
            else selective_scan(*inputs, impl=name)[0]
        )

    def call(inputs, cotangent):
        y, vjp = jax.vjp(scan, *inputs)
        return y, vjp(cotangent)

    return call


def make_inputs(batch: int, length: int, channels: int, states: int):
    """Inputs as a freshly initialized block makes them: A = -(1..N), steps between 1e-3 and 0.1."""
    rng = np.random.default_rng(length)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    dt = np.exp(
        rng.uniform(np.log(1e-3), np.log(0.1), (batch, length, channels))
    ).astype(np.float32)
    A = np.tile(-np.arange(1.0, states + 1, dtype=np.float32)[:, None], (1, channels))
    u, B, C = (
        normal(batch, length, channels),
        normal(batch, length, states),
        normal(batch, length, states),
    )
    return (u, dt, A, B, C, np.ones(channels, np.float32)), normal(
        batch, length, channels
    )


def exact_results(inputs, cotangent):
    """Outputs and gradients in float64, from the plain scan."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (inputs, cotangent))
        return jax.tree.map(np.asarray, jax.jit(forward_backward("ref"))(*wide))


def make_form(name: str, inputs, cotangent, exact) -> Form:
    executable = compiled(forward_backward(name), inputs, cotangent)
    errors = jax.tree.map(
        lambda x, r: float(np.abs(x - r).max() / np.abs(r).max()),
        executable(inputs, cotangent),
        exact,
    )
    return Form(name, executable, temp_bytes(executable), errors[0], max(errors[1]))


def measure(
    length: int, args: dict[str, Any]
) -> tuple[dict[str, Form], dict[str, PairTiming]]:
    """Check every form at this length, then time each baseline against ``xla``."""
    inputs, cotangent = make_inputs(args["B"], length, args["D"], args["N"])
    exact = exact_results(inputs, cotangent)
    inputs, cotangent = jax.tree.map(jnp.asarray, (inputs, cotangent))
    forms = {
        name: make_form(name, inputs, cotangent, exact) for name in ("xla", *BASELINES)
    }
    repeats = args["repeats"] if length <= 20 else max(4, args["repeats"] // 2)
    call = lambda name: lambda: forms[name].executable(inputs, cotangent)  # noqa: E731
    return forms, {
        name: timed_pair(call(name), call("xla"), repeats, attempts=6)
        for name in BASELINES
    }


def table_rows(
    length: int, forms: dict[str, Form], pairs: dict[str, PairTiming]
) -> list[list[Any]]:
    """One line a form; a ratio whose A/A noise is above the limit is withheld."""
    rows = []
    for name, pair in pairs.items():
        form, timing = forms[name], pair.baseline
        ratios = (
            [pair.ratio, timing.wall_min / pair.candidate.wall_min]
            if pair.trusted
            else [f"noise {pair.noise:.0%}"] * 2
        )
        rows.append(
            _row(length, form, timing, [*ratios, form.temp / forms["xla"].temp])
        )
    best = min(
        (pair.candidate for pair in pairs.values()), key=lambda timing: timing.best
    )
    rows.append(_row(length, forms["xla"], best, [1.0, 1.0, 1.0]))
    return rows


def _row(length, form: Form, timing, ratios) -> list[Any]:
    times = [timing.cpu_min * 1e3, timing.wall_min * 1e3, form.temp / 2**20]
    return [
        length,
        form.name,
        *times,
        *ratios,
        f"{form.error_y:.1e}",
        f"{form.error_gradients:.1e}",
    ]


def cell(
    length: int, forms: dict[str, Form], name: str, pair: PairTiming
) -> dict[str, Any]:
    """What the record keeps of one comparison."""
    return {
        "L": length,
        "baseline": name,
        "ratio": pair.ratio,
        "noise": pair.noise,
        "trusted": pair.trusted,
        "baseline_temp_bytes": forms[name].temp,
        "xla_temp_bytes": forms["xla"].temp,
        "baseline_s": pair.baseline._asdict(),
        "xla_s": pair.candidate._asdict(),
        "errors": {
            form: (forms[form].error_y, forms[form].error_gradients)
            for form in (name, "xla")
        },
    }


def main() -> int:
    args = arguments(DEFAULTS)
    cells, wrong = [], []
    print(markdown_table(HEADER, []))
    for length in args["L"]:
        forms, pairs = measure(length, args)
        print(
            markdown_table(HEADER, table_rows(length, forms, pairs)).split("\n", 2)[2],
            flush=True,
        )
        wrong += [
            f"{form.name} at L={length}" for form in forms.values() if not form.exact
        ]
        cells += [cell(length, forms, name, pair) for name, pair in pairs.items()]
    print(
        f"disagree with float64: {', '.join(wrong)}"
        if wrong
        else f"all forms equal float64 within {BOUNDS}"
    )
    if args["out"]:
        write_json(
            args["out"],
            {"arguments": args, "bounds": BOUNDS, "cells": cells, "disagree": wrong},
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
