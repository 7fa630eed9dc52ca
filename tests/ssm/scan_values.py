"""Inputs, gradients and errors of the selective scan, for its tests."""

import functools

import jax
import numpy as np

from jmarl.ssm import selective_scan


E, N = 8, 4
NAMES = ("u", "dt", "A", "B", "C", "D", "h0")


def run_scan(values, **options):
    return selective_scan(**{**values, **options})


def inputs(batch=(5,), length=7, seed=0, dtype=np.float32, sizes=(N, E)):
    states, channels = sizes
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    log_dt = rng.uniform(np.log(1e-3), np.log(0.5), (*batch, length, channels))
    dt = np.exp(log_dt).astype(dtype)
    A = -np.exp(normal(states, channels))
    B = normal(*batch, length, states)
    C = normal(*batch, length, states)
    return {
        "u": normal(*batch, length, channels),
        "dt": dt,
        "A": A,
        "B": B,
        "C": C,
        "D": normal(channels),
        "h0": normal(*batch, states, channels),
    }


def resets(batch=(5,), length=7, seed=1):
    return np.random.default_rng(seed).random((*batch, length)) < 0.3


def weights(values, seed=2):
    rng = np.random.default_rng(seed)
    like = (values["u"], values["h0"])
    return tuple(rng.standard_normal(x.shape).astype(x.dtype) for x in like)


def value_and_gradients(values, weight, reset=None, impl="ref"):
    """Return (y, h_last) and the gradients of a weighted sum of both, by name."""

    @jax.jit
    def call(values, weight):
        run = functools.partial(run_scan, reset=reset, impl=impl)
        out, vjp = jax.vjp(run, values)
        (gradients,) = vjp(weight)
        return out, gradients

    return jax.tree.map(np.asarray, call(values, weight))


def exact(values, weight, reset=None, impl="ref"):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (values, weight))
        return value_and_gradients(*wide, reset=reset, impl=impl)


def error(x, reference):
    return np.abs(x - reference).max() / np.abs(reference).max()
