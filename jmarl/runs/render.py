"""``jmarl render``: one episode of a run's policy, to look at."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jmarl.cli.launch import use_compile_cache
from jmarl.config import ConfigError, check, check_range
from jmarl.envs import registry
from jmarl.envs.scene import Scene
from jmarl.runs import folder as run_folder
from jmarl.runs import video as render
from jmarl.runs.evaluate_saved import PARAMETERS
from jmarl.runs.warm_start import restore_params
from jmarl.system import System
from jmarl.training.evaluation import MODES, exploration
from jmarl.training.train import assemble
from jmarl.types import Env, Key, Params


def render_run(
    run: str,
    *,
    file: str = "",
    parameters: str = "best",
    learner: int = 0,
    seed: int = 0,
    greedy: bool = True,
) -> int:
    """Play one episode with a run's parameters and write it as GIF or MP4, by default ``episode.gif`` in its folder.

    ``parameters`` is ``best`` (those of the best evaluation) or ``latest``, ``learner`` counts the run's seeds from 0
    and ``seed`` draws another episode. Raises ``ConfigError`` where there is nothing to show or no way to draw it.
    """
    check(
        parameters in PARAMETERS,
        "parameters",
        parameters,
        f"must be one of {', '.join(PARAMETERS)}",
    )
    check_range("seed", seed, 0, 2**32 - 1)
    folder = run_folder.existing("run", run)
    config = run_folder.read_config(folder)
    check_range("learner", learner, 0, config.num_seeds - 1)
    to = pathlib.Path(file) if file else folder / "episode.gif"
    draw = scenes_of(str(config.env["name"]))
    render.check_file(to)
    use_compile_cache(config.arch)
    env, system = assemble(config)
    params, _ = restore_params(config, folder, parameters)
    params = jax.tree.map(lambda x: x[learner], params)
    states, result = episode(env, system, params, jax.random.key(seed), greedy=greedy)
    render.write([draw(state) for state in states], to)
    text = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    print(f"{len(states) - 1} steps, {text}; wrote {to}", flush=True)
    return 0


def scenes_of(name: str) -> Callable[[Any], Scene]:
    """What draws a state of that world; raises ``ConfigError`` where nothing does."""
    scene = registry.scene_of(name)
    if scene is None:
        raise ConfigError(
            f"env={name}: has no pictures; see docs/environments.md for how to give it some"
        )
    return partial(scene, name)


def episode(
    env: Env, system: System, params: Params, key: Key, *, greedy: bool = True
) -> tuple[list[Any], dict[str, float]]:
    """The states of one world from the start to the end of an episode, as NumPy, and what it came to."""

    def play(params: Params, key: Key) -> Any:
        k_reset, k_steps = jax.random.split(key)
        state, timestep = env.reset(k_reset, 1)
        explore = exploration(system)[MODES.index("greedy" if greedy else "sampled")]

        def step(loop: Any, key: Key) -> Any:
            state, timestep, carry = loop
            k_act, k_env = jax.random.split(key)
            action, carry, _ = system.act(params, carry, timestep, k_act, explore)
            state, after = env.step(k_env, state, action)
            return (state, after, carry), (
                state,
                after.obs.team_mean(after.reward),
                after.last,
                after.info,
            )

        keys = jax.random.split(k_steps, env.spec.episode_limit + 1)
        _, trace = jax.lax.scan(step, (state, timestep, system.carry(1)), keys)
        return state, trace

    start, (states, reward, last, info) = jax.device_get(jax.jit(play)(params, key))
    length = int(np.argmax(last[:, 0])) + 1
    after = [jax.tree.map(lambda x, t=t: x[t, 0], states) for t in range(length)]
    result = {"return": float(reward[:length].sum())}
    result |= {name: float(info[name][length - 1, 0]) for name in env.spec.outcomes}
    return [jax.tree.map(lambda x: x[0], start), *after], result
