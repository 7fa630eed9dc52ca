"""Starts from which QPLEX solves a non-monotonic matrix game, for each form of its weights.

    python -m benchmarks.matrix_game [starts=20] [steps=4000] [deviations=0.1,1,5]
        [out=results/matrix_game.json]

Options:

* ``starts``, ``steps``: random starts of each case, and gradient steps of each start.
* ``deviations``: standard deviations of the initial values of the agents' actions.
* ``out``: JSON file of the record; none by default.

Method: the payoffs of QTRAN (Son et al. 2019, arXiv:1905.05408), table 1, are fitted by a table
of values for each of two agents and a mixer, with Adam at 0.01 and all nine joint actions in
every batch. A start is *solved* if every payoff is fitted within 0.1, and *greedy* if the agents'
best actions are the best joint action. The forms are

* ``w = 1``: the default of ``system.mixer``.
* ``w learned``: ``system.mixer.weighted=true``.
* ``authors``: the same, with the initial weights of PyTorch's ``Linear``, as in the authors' code.

Output: a table of solved and greedy starts.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool

from benchmarks.support.common import (
    markdown_table,
    parse_arguments,
    write_json,
)
from jmarl.cli.process import exit_code
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import MixerConfig, make_mixer
from jmarl.networks.mixers.qplex_mixer import QPLEXConfig
from jmarl.types import Key, Params, Spec


DEFAULTS: dict[str, Any] = {
    "starts": 20,
    "steps": 4000,
    "deviations": (0.1, 1.0, 5.0),
    "out": "",
}
PAYOFF = jnp.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
GAME = Spec(2, 3, 2, (), global_width=2, episode_limit=1, action_target=(-1,) * 3)
DEFAULT = QPLEXConfig("qplex", mask_dead=False, weighted=False, kernels=4, hypernet=64)
LEARNED = dataclasses.replace(DEFAULT, weighted=True)


def keep(params: Params, key: Key) -> Params:
    """Return the initial parameters unchanged."""
    del key
    return params


def as_in_pytorch(params: Params, key: Key) -> Params:
    """Draw kernels and biases from ``U(-b, b)`` with ``b = 1 / sqrt(inputs of the layer)``."""
    layers = jax.tree_util.tree_flatten_with_path(params)[0]
    inputs = {path[:-1]: x.shape[-2] for path, x in layers if path[-1].key == "kernel"}

    def draw(path: Any, x: Array) -> Array:
        number = zlib.crc32(jax.tree_util.keystr(path).encode())
        name_key = jax.random.fold_in(key, number)
        bound = inputs[path[:-1]] ** -0.5
        return jax.random.uniform(name_key, x.shape, minval=-bound, maxval=bound)

    return jax.tree_util.tree_map_with_path(draw, params)


FORMS: dict[str, tuple[QPLEXConfig, Callable[[Params, Key], Params]]] = {
    "w = 1": (DEFAULT, keep),
    "w learned": (LEARNED, keep),
    "authors": (LEARNED, as_in_pytorch),
}


def fit_game(
    cfg: MixerConfig,
    starts: int,
    steps: int,
    deviation: float,
    initial: Callable[[Params, Key], Params] = keep,
) -> tuple[Bool[np.ndarray, " starts"], Array]:
    """Fit the values of two agents and a mixer to all nine payoffs, from several starts.

    Args:
        cfg: Configuration of the mixer.
        starts: Number of random starts.
        steps: Gradient steps of each start.
        deviation: Standard deviation of the initial values.
        initial: Function ``(params, key) -> params`` that changes the mixer's initial weights.

    Returns:
        For each start, whether the greedy joint action is the best one, and the largest error.
    """
    action = jnp.array(list(itertools.product(range(3), repeat=2)))[None]
    obs = empty_obs(GAME, 1, 9)
    state = obs.state.replace(features=jnp.ones((1, 9, 2)))
    obs = obs.replace(own=jnp.ones_like(obs.own), state=state)
    mixer, tx = make_mixer(GAME, cfg), optax.adam(0.01)

    def errors(variables: Any) -> Array:
        values, params = variables
        q = jnp.broadcast_to(values, (1, 9, 2, 3))
        return mixer.apply(params, q, action, obs)[0] - PAYOFF.ravel()

    def step(state: Any, _: None) -> Any:
        variables, opt_state = state
        grads = jax.grad(lambda v: (errors(v) ** 2).mean())(variables)
        updates, opt_state = tx.update(grads, opt_state, variables)
        return (optax.apply_updates(variables, updates), opt_state), None

    def fit(key: Key) -> Any:
        q_key, key = jax.random.split(key)
        values = deviation * jax.random.normal(q_key, (2, 3))
        params = mixer.init(key, jnp.zeros((1, 9, 2, 3)), action, obs)
        variables = values, initial(params, key)
        start = variables, tx.init(variables)
        (variables, _), _ = jax.lax.scan(step, start, length=steps)
        return (variables[0].argmax(-1) == 0).all(), jnp.abs(errors(variables)).max()

    return jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), starts))


def main() -> int:
    """Fit every form from every deviation; print and record the counts."""
    args = parse_arguments(DEFAULTS)
    rows = []
    for form, (cfg, initial) in FORMS.items():
        for deviation in args["deviations"]:
            sizes = args["starts"], args["steps"], float(deviation)
            greedy, error = fit_game(cfg, *sizes, initial)
            counts = int((error < 0.1).sum()), int(greedy.sum())
            rows.append((form, float(deviation), *counts, args["starts"]))
    header = ("form", "initial deviation", "solved", "greedy", "starts")
    print(markdown_table(header, rows))
    if args["out"]:
        cells = [dict(zip(header, row, strict=True)) for row in rows]
        write_json(args["out"], {"steps": args["steps"], "rows": cells})
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
