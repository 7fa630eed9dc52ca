"""Measure of zero-shot transfer: results in other environments with unchanged parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jmarl.config import ConfigError, check, check_range
from jmarl.envs.registry import check_name
from jmarl.saved.evaluate_saved import build_target, play
from jmarl.studies.measures.saved_run import SavedRun
from jmarl.studies.results import MEASURE_EPISODES


KEY = "measure.options.envs"


@dataclass(frozen=True)
class Options:
    """Environments, and the number of episodes.

    Attributes:
        envs: Names of environments. They have the options of the run's own environment.
        episodes: Greedy episodes in each environment.
        seed: Seed of the episodes.
    """

    envs: tuple[str, ...]
    episodes: int = MEASURE_EPISODES
    seed: int = 0

    def __post_init__(self) -> None:
        check(len(self.envs) > 0, KEY, (), "must name an environment")
        for name in self.envs:
            try:
                check_name(name)
            except ValueError as error:
                raise ConfigError(f"{KEY}={name}: {error}") from None
        check_range("measure.options.episodes", self.episodes, 1)
        check_range("measure.options.seed", self.seed, 0)


def measure(run: SavedRun, options: Options) -> dict[str, Any]:
    """Return the results of a run in several environments.

    Args:
        run: The run; the parameters of each seed's best evaluation are measured.
        options: Environments.

    Returns:
        ``return/<environment>``, and ``win_rate/<environment>`` if it has winners: means over
        greedy episodes, for each seed.

    Raises:
        ConfigError: If an environment is unknown, or acting there needs parameters of other shapes.
    """
    targets = {name: build_target(run.built, name, KEY) for name in options.envs}
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *run.params())
    found: dict[str, Any] = {}
    for name, target in targets.items():
        greedy = play(target, params, options.episodes, options.seed)["greedy"]
        if "won" in greedy:
            found[f"win_rate/{name}"] = greedy["won"].mean(1).tolist()
        found[f"return/{name}"] = greedy["return"].mean(1).tolist()
    return found
