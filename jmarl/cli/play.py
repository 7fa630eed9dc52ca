"""``jmarl play``: win rates of scripted players."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.config import ConfigError, check_range
from jmarl.envs.battle.players.scripted import PLAYERS, check_player, make_player
from jmarl.results import tables
from jmarl.results.files import check_writable, write_json
from jmarl.results.machine import environment_record, versions
from jmarl.results.tables import Summary
from jmarl.runs.compilation import compiler_options
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.evaluate_saved import EFFORT
from jmarl.training.anakin import device_mesh
from jmarl.training.build import make_env
from jmarl.training.scripted_play import play_program
from jmarl.types import Env


class Played(NamedTuple):
    """Results of all players in one environment."""

    results: Summary
    """One estimate by player and metric."""
    seconds: float
    """Wall time, with compilation."""


@dataclass(frozen=True)
class PlayArguments:
    """Arguments of ``play``.

    Attributes:
        env: Names of environments, separated by commas.
        player: Names of players, separated by commas.
        episodes: Episodes of each player, exactly one in each environment of the batch.
        seed: Seed of the episodes.
        json: File to write the results to, after each environment; empty for none.
    """

    env: str
    player: str = ",".join(PLAYERS)
    episodes: int = 512
    seed: int = 0
    json: str = ""

    def __post_init__(self) -> None:
        for player in self.players:
            check_player(player)
        check_range("episodes", self.episodes, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_writable(self.json)

    @property
    def envs(self) -> list[str]:
        """Return the names of the environments."""
        return _names("env", self.env)

    @property
    def players(self) -> list[str]:
        """Return the names of the players."""
        return _names("player", self.player)


def play(arguments: PlayArguments, options: Mapping[str, Any]) -> int:
    """Evaluate scripted players and print their win rates.

    All players start from the same states. Every argument is checked before anything compiles.

    Args:
        arguments: Environments, players and episodes.
        options: Options of all environments.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If an argument is invalid, or a player cannot act in an environment.
    """
    players, episodes, seed = arguments.players, arguments.episodes, arguments.seed
    envs = [_build(name, players, options) for name in arguments.envs]
    record = _record(arguments, options)
    width = max(len(env.name) for env in envs)
    print(f"{episodes} episodes of seed {seed}, 95 % intervals:", flush=True)
    for env in envs:
        played = play_env(env, players, episodes, seed)
        print(tables.player_table(f"{env.name:<{width}}", played.results), flush=True)
        record["envs"][env.name] = played._asdict()
        record["seconds"] += played.seconds
        if arguments.json:
            write_json(pathlib.Path(arguments.json), record)
    return ExitCode.FINISHED


def play_env(env: Env, players: Sequence[str], episodes: int, seed: int) -> Played:
    """Evaluate players in one environment. The program is compiled once for all of them.

    Args:
        env: Environment.
        players: Names of players.
        episodes: Episodes of each player.
        seed: Seed of the episodes.
    """
    began = time.perf_counter()
    program = play_program(env, players, episodes)
    key = jax.random.key(seed)
    with jax.set_mesh(device_mesh()):
        lowered = jax.jit(program).lower(jnp.int32(0), key)
        compiled = lowered.compile(compiler_options(EFFORT))
        results = [
            jax.device_get(compiled(jnp.int32(i), key)) for i in range(len(players))
        ]
    names = (*env.spec.outcomes, *tables.MEANS)
    episodes_of = {
        player: {name: np.asarray(result[name])[None] for name in names}
        for player, result in zip(players, results, strict=True)
    }
    return Played(tables.summarize(episodes_of), time.perf_counter() - began)


def _names(key: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{key}={text}: must be a name, or several with commas")
    return list(dict.fromkeys(names))


def _build(name: str, players: Sequence[str], options: Mapping[str, Any]) -> Env:
    """Build an environment and check that all players can act in it."""
    env = make_env(name, options)
    for player in players:
        try:
            make_player(player, env.spec)
        except ConfigError as error:
            raise ConfigError(f"env={name}: {error}") from None
    return env


def _record(arguments: PlayArguments, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without results."""
    return {
        "environment": environment_record(versions()),
        "players": arguments.players,
        "episodes": arguments.episodes,
        "seeds": [arguments.seed],
        "options": dict(options),
        "seconds": 0.0,
        "envs": {},
    }
