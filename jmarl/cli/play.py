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
from jmarl.envs import registry
from jmarl.results import tables
from jmarl.results.files import check_writable, write_json
from jmarl.results.machine import environment_record, versions
from jmarl.results.tables import Summary
from jmarl.runs.compilation import compiler_options
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.evaluate_saved import EFFORT
from jmarl.saved.render import play_episode, scene_function
from jmarl.saved.video import check_file, write_video
from jmarl.training.anakin import device_mesh
from jmarl.training.build import make_env
from jmarl.training.scripted_play import make_players, play_program, player_system
from jmarl.types import Env


class Match(NamedTuple):
    """An environment with the players to evaluate in it."""

    env: Env
    players: tuple[str, ...]


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
        player: Names of players, separated by commas; None for the listed ones of each
            environment.
        episodes: Episodes of each player, exactly one in each environment of the batch.
        seed: Seed of the episodes.
        json: File to write the results to, after each environment; empty for none.
        file: File for a video or page of the first episode of the first player in the first
            environment; empty for none.
    """

    env: str
    player: str | None = None
    episodes: int = 512
    seed: int = 0
    json: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if self.player is not None:
            _names("player", self.player)
        check_range("episodes", self.episodes, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_writable(self.json)
        if self.file:
            check_file(pathlib.Path(self.file))

    @property
    def envs(self) -> list[str]:
        """Return the names of the environments."""
        return _names("env", self.env)

    def players(self, env: str) -> tuple[str, ...]:
        """Return the names of the players in an environment."""
        if self.player is None:
            return registry.players_of(env).names
        return tuple(_names("player", self.player))


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
    episodes, seed = arguments.episodes, arguments.seed
    matches = [_build(name, arguments, options) for name in arguments.envs]
    record = _record(arguments, matches, options)
    if arguments.file:
        _draw_first_episode(matches[0], arguments)
    width = max(len(env.name) for env, _ in matches)
    print(f"{episodes} episodes of seed {seed}, 95 % intervals:", flush=True)
    for env, players in matches:
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


def _build(name: str, arguments: PlayArguments, options: Mapping[str, Any]) -> Match:
    """Build an environment, and check its players and its scene."""
    env = make_env(name, options)
    players = arguments.players(name)
    try:
        make_players(env, players)
    except ConfigError as error:
        raise ConfigError(f"env={name}: {error}") from None
    if arguments.file:
        scene_function(env, name)
    return Match(env, players)


def _draw_first_episode(match: Match, arguments: PlayArguments) -> None:
    """Write the first episode of the first player.

    The keys of an environment do not depend on the number of environments, so the episode is
    the first one of the evaluation.
    """
    env, player = match.env, match.players[0]
    draw = scene_function(env, env.name)
    system = player_system(make_players(env, [player]))
    key = jax.random.key(arguments.seed)
    states, result = play_episode(env, system, jnp.int32(0), key)
    text = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    file = pathlib.Path(arguments.file)
    write_video(
        [draw(state) for state in states], file, f"{env.name}: {player}, {text}"
    )
    print(f"{player}: {len(states) - 1} steps, {text}; wrote {file}", flush=True)


def _record(
    arguments: PlayArguments, matches: Sequence[Match], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a record without results."""
    names = [name for match in matches for name in match.players]
    return {
        "environment": environment_record(versions()),
        "players": list(dict.fromkeys(names)),
        "episodes": arguments.episodes,
        "seeds": [arguments.seed],
        "options": dict(options),
        "seconds": 0.0,
        "envs": {},
    }
