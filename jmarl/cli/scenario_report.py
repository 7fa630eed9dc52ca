"""``jmarl scenario``: check a scenario file, and write what it describes."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jmarl.cli.play import play_env
from jmarl.config import ConfigError, check_range
from jmarl.envs.battle.players.scripted import PLAYERS, check_player, make_player
from jmarl.envs.battle.scenario_env import read_battle
from jmarl.envs.battle.scenarios.battle_spec import Battle, Group, Place, Steps
from jmarl.results import tables
from jmarl.results.files import replace_file, write_json
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.frame import draw_frame, view
from jmarl.saved.render import play_episode, scene_function
from jmarl.saved.video import encode_png, write_video
from jmarl.training.build import make_env
from jmarl.training.scripted_play import player_system
from jmarl.types import Env


@dataclass(frozen=True)
class ScenarioArguments:
    """Arguments of ``report``.

    Attributes:
        file: Scenario file.
        out: Folder for the results; by default the name of the file without its ending.
        player: Player of the episode that is drawn.
        episodes: Episodes of each player; 0 leaves out their win rates.
        seed: Seed of the episodes.
    """

    file: str
    out: str = ""
    player: str = "focus"
    episodes: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_player(self.player)
        check_range("episodes", self.episodes, 0)
        check_range("seed", self.seed, 0, 2**32 - 1)

    @property
    def folder(self) -> pathlib.Path:
        """Return the folder for the results."""
        return pathlib.Path(self.out or pathlib.Path(self.file).stem)


def report(arguments: ScenarioArguments) -> int:
    """Check a scenario file; write its roster, win rates of players, a preview and an episode.

    Args:
        arguments: File, folder and episodes.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the file or an argument is wrong.
    """
    battle = read_battle(arguments.file)
    env = make_env("battle", {"scenario": arguments.file})
    folder = _make_folder(arguments.folder)
    text = roster(battle)
    print(text, flush=True)
    replace_file(folder / "roster.txt", f"{text}\n".encode())
    _write_episode(env, arguments, folder)
    if arguments.episodes:
        _write_win_rates(env, arguments, folder)
    print(f"wrote {folder}/", flush=True)
    return ExitCode.FINISHED


def roster(battle: Battle) -> str:
    """Return the rules, the terrain and the units of both teams as text."""
    head = f"rules {battle.rules}, terrain {battle.terrain.name}, {battle.limit} steps"
    lines = [head]
    for team in ("allies", "enemies"):
        lines.append(f"{team}:")
        lines += [f"  {_describe(group)}" for group in getattr(battle, team)]
    zones = [f"{zone.effect} {zone.amount:g}" for zone in battle.zones]
    return "\n".join([*lines, *(["zones: " + ", ".join(zones)] if zones else [])])


def _describe(group: Group) -> str:
    """Return the units, the start, the order and the times of a group."""
    units = ", ".join(f"{count} {name}" for name, count in group.units)
    parts = [f"{units} at {_place(group.at)}"]
    if group.order:
        place = f" {_place(group.order.place)}" if group.order.place else ""
        parts.append(f"{group.order.kind}{place}")
    if group.arrives.last:
        parts.append(f"arrives at step {_steps(group.arrives)}")
    if group.leaves:
        parts.append(f"leaves at step {_steps(group.leaves)}")
    return ", ".join(parts)


def _place(place: Place) -> str:
    start, end = (place.x, place.y), (place.to_x, place.to_y)
    points = [start] if start == end else [start, end]
    return " to ".join(f"({x:g}, {y:g})" for x, y in points)


def _steps(steps: Steps) -> str:
    return " to ".join(str(step) for step in dict.fromkeys(steps))


def _make_folder(folder: pathlib.Path) -> pathlib.Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "name another folder"
        raise ConfigError(f"out={folder}: {error.strerror}; {fix}") from None
    return folder


def _write_win_rates(
    env: Env, arguments: ScenarioArguments, folder: pathlib.Path
) -> None:
    played = play_env(env, PLAYERS, arguments.episodes, arguments.seed)
    print(f"{arguments.episodes} episodes, means and 95 % intervals:")
    print(tables.player_table("", played.results), flush=True)
    record: dict[str, Any] = {
        "episodes": arguments.episodes,
        "seeds": [arguments.seed],
        **played._asdict(),
    }
    write_json(folder / "players.json", record)


def _write_episode(
    env: Env, arguments: ScenarioArguments, folder: pathlib.Path
) -> None:
    """Write the first picture of an episode, and the whole of it as GIF and as a page."""
    draw = scene_function(env, env.name)
    system = player_system([make_player(arguments.player, env.spec)])
    key = jax.random.key(arguments.seed)
    states, result = play_episode(env, system, jnp.int32(0), key)
    scenes = [draw(state) for state in states]
    image = draw_frame(scenes[0], part=view(scenes))
    replace_file(folder / "preview.png", encode_png(image))
    text = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    title = f"{pathlib.Path(arguments.file).stem}: {arguments.player}, {text}"
    for suffix in ("gif", "html"):
        write_video(scenes, folder / f"episode.{suffix}", title)
    print(f"episode of {arguments.player}: {len(scenes) - 1} steps, {text}", flush=True)
