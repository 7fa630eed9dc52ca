"""Pictures of episodes: play one episode of a run, and write GIF, MP4, PNG or an HTML page."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jmarl.config import ConfigError, check, check_range
from jmarl.envs.scene import Scene
from jmarl.runs import folder as run_folder
from jmarl.runs.warm_start import restore_params
from jmarl.saved.evaluate_saved import PARAMETERS
from jmarl.saved.video import check_file, write_video
from jmarl.system import System
from jmarl.training.anakin import Actor, act_and_step
from jmarl.training.build import build_run
from jmarl.training.evaluation import MODES, exploration_rates
from jmarl.types import Env, Key, Params


def render_run(
    run: str,
    *,
    file: str = "",
    parameters: str = "best",
    learner: int = 0,
    seed: int = 0,
    greedy: bool = True,
    step: int = 0,
) -> int:
    """Play one episode with the parameters of a run and write it as GIF, MP4, HTML or PNG.

    Args:
        run: Path of the run folder.
        file: Path of the result; by default ``episode.gif`` in the run folder.
        parameters: ``best`` for those of the best evaluation, or ``latest``.
        learner: Index of the seed of the run, from 0.
        seed: Seed of the episode.
        greedy: Act greedily instead of sampling.
        step: Step of the episode that a PNG shows.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: If an argument is invalid, the run has no checkpoint, or the
            environment cannot be drawn.
        ResourceError: If the disk is full.
    """
    choices = ", ".join(PARAMETERS)
    check(
        parameters in PARAMETERS, "parameters", parameters, f"must be one of {choices}"
    )
    check_range("seed", seed, 0, 2**32 - 1)
    folder = run_folder.find_folder("run", run)
    config = run_folder.read_config(folder)
    check_range("learner", learner, 0, config.num_seeds - 1)
    path = pathlib.Path(file) if file else folder / "episode.gif"
    check_file(path, step)
    _, env, system = build_run(config)
    draw = scene_function(env, str(config.env["name"]))
    params, _ = restore_params(config, folder, parameters)
    params = jax.tree.map(lambda x: x[learner], params)
    key = jax.random.key(seed)
    states, result = play_episode(env, system, params, key, greedy=greedy)
    text = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    title = f"{config.env['name']}: {text}"
    write_video([draw(state) for state in states], path, title, step)
    print(f"{len(states) - 1} steps, {text}; wrote {path}", flush=True)
    return 0


def scene_function(env: Env, name: str) -> Callable[[Any], Scene]:
    """Return the function from a state of an environment to its scene.

    Args:
        env: Environment to draw.
        name: Its registered name, for the error message.

    Raises:
        ConfigError: If the environment has no scene.
    """
    if env.scene is None:
        raise ConfigError(
            f"env={name}: has no scene to draw; pass a function scene(state) -> Scene to its "
            "SingleEnv or Env, as in docs/how-to/render.md"
        )
    return env.scene


def play_episode(
    env: Env, system: System, params: Params, key: Key, *, greedy: bool = True
) -> tuple[list[Any], dict[str, float]]:
    """Play one episode in one environment.

    Args:
        env: Environment of the episode.
        system: Provides ``act`` and the exploration rate of sampled episodes.
        params: Parameters of one seed.
        key: Random key.
        greedy: Act greedily instead of sampling.

    Returns:
        The environment states from start to end, as NumPy arrays without a batch axis,
        and the return and outcomes.
    """
    mode = MODES.index("greedy" if greedy else "sampled")

    def play(params: Params, key: Key) -> Any:
        k_reset, k_steps = jax.random.split(key)
        start, timestep = env.reset(k_reset, 1)
        explore = exploration_rates(system)[mode]

        def step(actor: Actor, key: Key) -> Any:
            keys = jax.random.split(key)
            actor, _, _ = act_and_step(env, system, params, actor, keys, explore)
            after = actor.timestep
            reward = after.obs.team_mean(after.reward)
            return actor, (actor.env_state, reward, after.last, after.info)

        actor = Actor(start, timestep, system.carry(1))
        keys = jax.random.split(k_steps, env.spec.episode_limit + 1)
        _, trace = jax.lax.scan(step, actor, keys)
        return start, trace

    start, trace = jax.device_get(jax.jit(play)(params, key))
    states, reward, last, info = trace  # [T, 1, ...]
    length = int(np.argmax(last[:, 0])) + 1
    result = {"return": float(reward[:length].sum())}
    result |= {name: float(info[name][length - 1, 0]) for name in env.spec.outcomes}
    first = jax.tree.map(lambda x: x[0], start)
    others = [jax.tree.map(lambda x, t=t: x[t, 0], states) for t in range(length)]
    return [first, *others], result
