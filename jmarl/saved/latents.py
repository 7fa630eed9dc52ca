"""Record the latents of a saved run's agents, and report the information in them."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from jmarl.config import RunConfig, check, check_range
from jmarl.envs.scene import Scene
from jmarl.results.files import check_writable, write_json
from jmarl.results.latent_report import LatentRows, draw_latents, latent_report
from jmarl.results.machine import environment_record, versions
from jmarl.runs import folder as run_folder
from jmarl.runs.warm_start import restore_params
from jmarl.saved.evaluate_saved import PARAMETERS
from jmarl.saved.record import make_recorder
from jmarl.system import LatentsFn, System
from jmarl.training.anakin import Actor
from jmarl.training.build import build_run
from jmarl.types import Env, Params


BATCH = 16
"""Episodes that are played together; their states are stored for all time steps."""
MIN_MOVE = 1e-3
"""Smallest retreat: increase in the distance to the enemies, as a share of the map's width."""


def latents_run(
    run: str,
    *,
    episodes: int = 256,
    parameters: str = "best",
    learner: int = 0,
    seed: int = 0,
    out: str = "",
) -> int:
    """Record latents over sampled episodes, and write a report, a picture and the rows.

    Args:
        run: Run folder.
        episodes: Episodes to record.
        parameters: ``best`` (the best evaluation) or ``latest``.
        learner: Index of the seed of the run, from 0.
        seed: Seed of the episodes.
        out: Folder for ``latents.json``, ``latents.png`` and ``latents.npz``; by default the run
            folder.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If an argument is invalid, the run has no latents, or the folder holds no
            checkpoint.
    """
    rule = f"must be one of {', '.join(PARAMETERS)}"
    check(parameters in PARAMETERS, "parameters", parameters, rule)
    check_range("episodes", episodes, 2)
    check_range("seed", seed, 0, 2**32 - 1)
    folder = run_folder.find_folder("run", run)
    config = run_folder.read_config(folder)
    check_range("learner", learner, 0, config.num_seeds - 1)
    to = pathlib.Path(out) if out else folder
    check_writable(str(to / "latents.json"))
    _, env, system = build_run(config)
    latents_of = _latents_of(system, run, config)
    params, _ = restore_params(config, folder, parameters)
    params = jax.tree.map(lambda x: x[learner], params)
    rows = record_latents(env, system, latents_of, params, episodes, seed)
    report = {
        "environment": environment_record(versions()),
        "system": config.system_name,
        "env": config.env["name"],
        "seed": config.seeds[learner],
        "parameters": parameters,
        **latent_report(rows, seed),
    }
    write_json(to / "latents.json", report)
    np.savez_compressed(to / "latents.npz", **rows._asdict())
    draw_latents(rows, to / "latents.png")
    print(f"{_table(report)}\nwrote {to / 'latents.json'}, .png and .npz", flush=True)
    return 0


def _latents_of(system: System, run: str, config: RunConfig) -> LatentsFn:
    """Return the function that reads latents; raise ``ConfigError`` if there is none."""
    latents_of = system.latents
    rule = (
        f"a run of {config.system_name} without latents; name a run of shppo with "
        "system.hete=true"
    )
    check(latents_of is not None, "run", run, rule)
    assert latents_of is not None
    return latents_of


def record_latents(
    env: Env,
    system: System,
    latents_of: LatentsFn,
    params: Params,
    episodes: int,
    seed: int,
) -> LatentRows:
    """Play sampled episodes and return the rows of living agents.

    Args:
        env: Environment.
        system: System, for ``act`` and its final exploration rate.
        latents_of: Function that reads latents from the memory.
        params: Parameters of one seed.
        episodes: Number of episodes.
        seed: Seed of the episodes.

    Returns:
        Rows in the order of episodes and time steps.
    """
    play = jax.jit(_player(env, system, latents_of))
    keys = jax.random.split(jax.random.key(seed), -(-episodes // BATCH))
    found = []
    for batch, key in enumerate(keys):
        trace = jax.device_get(play(params, key))
        for i in range(min(BATCH, episodes - batch * BATCH)):
            one = jax.tree.map(lambda x, i=i: x[:, i], trace)
            found.append(_episode_rows(env, one, batch * BATCH + i))
    columns = zip(*found, strict=True)
    return LatentRows(*(np.concatenate(column) for column in columns))


def _player(env: Env, system: System, latents_of: LatentsFn) -> Any:
    """Return the function that plays one episode in each of ``BATCH`` environments."""

    def read(before: Actor, after: Actor) -> Any:
        obs = before.timestep.obs
        agents = obs.alive, obs.present, obs.unit_class
        row = *latents_of(after.carry), *agents, before.env_state
        return *row, after.timestep.last

    record = make_recorder(env, system, BATCH, read)
    explore = system.explore(jax.numpy.float32(jax.numpy.inf))
    return lambda params, key: record(params, key, explore)


def _episode_rows(env: Env, trace: Any, episode: int) -> LatentRows:
    """Return the rows of one episode, from arrays ``[T, ...]`` that may extend beyond its end."""
    length = int(np.argmax(trace[-1])) + 1
    mu, latent, alive, present, unit_class, states = jax.tree.map(
        lambda x: x[:length], trace[:-1]
    )
    health, retreat = _health_and_retreat(env, states, present)
    steps = np.broadcast_to(np.arange(length)[:, None], alive.shape)
    return LatentRows(
        mu=mu[alive],
        latent=latent[alive],
        unit_class=unit_class[alive],
        episode=np.full(alive.sum(), episode),
        step=steps[alive],
        phase=steps[alive] / length,
        health=health[alive],
        retreat=retreat[alive],
    )


def _health_and_retreat(
    env: Env, states: Any, present: Bool[np.ndarray, "T N"]
) -> tuple[Float[np.ndarray, "T N"], Float[np.ndarray, "T N"]]:
    """Return each agent's health, and 1 on rows after which it is farther from the enemies.

    Both are NaN for agents that the scene does not show. Enemies are the discs with another color
    than the agents, and a disc with fill 0 is dead.
    """
    health, retreat = np.full((2, *present.shape), np.nan)
    if env.scene is None:
        return health, retreat
    previous = None
    for t in range(len(present)):
        state = jax.tree.map(lambda x, t=t: x[t], states)
        scene = env.scene(state)
        place, health[t], enemies = _units(scene, present.shape[1])
        if previous is not None:
            before, center = previous
            gain = _distance(place, center) - _distance(before, center)
            retreat[t - 1] = np.where(
                np.isnan(gain), np.nan, gain > MIN_MOVE * scene.width
            )
        previous = place, enemies.mean(0) if len(enemies) else np.full(2, np.nan)
    return health, retreat


def _units(scene: Scene, n_agents: int) -> tuple[Any, Any, Any]:
    """Return positions ``[N, 2]`` and health ``[N]`` of agents, and positions of living enemies."""
    place, health = np.full((n_agents, 2), np.nan), np.full(n_agents, np.nan)
    own = [disc for disc in scene.discs if disc.agent is not None]
    for disc in own:
        place[disc.agent] = disc.x, disc.y
        health[disc.agent] = np.nan if disc.fill is None else disc.fill
    colors = {disc.color for disc in own}
    living = (disc for disc in scene.discs if disc.fill != 0)
    enemies = [(disc.x, disc.y) for disc in living if disc.color not in colors]
    return place, health, np.array(enemies).reshape(-1, 2)


def _distance(
    place: Float[np.ndarray, "N 2"], center: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, " N"]:
    return np.sqrt(((place - center) ** 2).sum(-1))


def _table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines = [f"{report['episodes']} episodes, {report['rows']} rows of living agents"]
    for name in ("mu", "latent"):
        results = report[name]
        shares = " ".join(f"{share:.2f}" for share in results["explained_variance"])
        lines.append(f"{name}: variance of principal components {shares}")
        lines.append(
            f"{name}: silhouette by unit class {_number(results['silhouette'])}"
        )
        for label in ("unit_class", "retreating"):
            found = results[label]
            keys = ("accuracy", "shuffled", "shuffled_95")
            accuracy, control, high = (_number(found[key]) for key in keys)
            text = f"shuffled {control} (95th percentile {high})"
            lines.append(f"{name}: probe of {label} {accuracy}, {text}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
