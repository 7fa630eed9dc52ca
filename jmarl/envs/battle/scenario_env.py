"""The environment ``battle``, which a scenario file defines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from jmarl import config as settings
from jmarl.config.choices import configs_dir, yaml_names
from jmarl.config.errors import ConfigError, check, suggest
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenario import BattleConfig, Scenario
from jmarl.envs.battle.scenarios.battle_spec import Battle
from jmarl.envs.battle.scenarios.scenario_file import parse, read_text
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.battle.smax import smax_battle
from jmarl.types import Env


KEY = "env.scenario"


def make(name: str, *, scenario: str = "", **options: Any) -> Env:
    """Build the environment of a scenario file.

    Args:
        name: name of the environment.
        scenario: path of the file, name of a file in ``configs/scenario``, or text.
        **options: fields of ``SmacConfig``; those of ``BattleConfig`` under the rules of SMAX,
            with ``exact_limit`` by default.

    Raises:
        ConfigError: the file or an option is wrong.
    """
    battle = read_battle(scenario)
    if battle.rules != "smax":
        config = settings.build(SmacConfig, options, "env")
        return smac_battle.build(name, battle, config)
    config = settings.build(BattleConfig, {"exact_limit": True, **options}, "env")
    return smax_battle.build(name, _to_smax(battle), config)


def inline_files(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the text of the scenario file in place of its path.

    A run that stores the text can resume after the file was deleted.
    """
    scenario = options.get("scenario", "")
    read_battle(scenario)
    # A newline distinguishes a text from a path.
    return {**options, "scenario": _text(scenario)[0].rstrip("\n") + "\n"}


def read_battle(scenario: str) -> Battle:
    """Return the battle of a scenario file, given by its path or its text."""
    text, source = _text(scenario)
    return parse(text, source, "battle")


def _text(scenario: str) -> tuple[str, str]:
    """Return the text of a scenario, and its source for errors."""
    if not isinstance(scenario, str) or not scenario:
        fix = "give the path of a scenario file"
        raise ConfigError(f"{KEY}={scenario!r}: no scenario; {fix}")
    if "\n" in scenario:
        return scenario, KEY
    return read_text(_path(scenario), f"{KEY}={scenario}"), scenario


def _path(scenario: str) -> Path:
    """Return the file of a named scenario, or the path itself."""
    names = yaml_names("scenario")
    if scenario in names:
        return configs_dir() / "scenario" / f"{scenario}.yaml"
    path = Path(scenario)
    rule = suggest(scenario, names, "give the path of a scenario file")
    check(
        path.exists() or bool(path.suffix), KEY, scenario, f"no such scenario; {rule}"
    )
    return path


def _to_smax(battle: Battle) -> Scenario:
    allies = [kind for kind, _ in battle.roster(battle.allies)]
    enemies = [kind for kind, _ in battle.roster(battle.enemies)]
    rules = replace(SMAX, units=battle.units)
    return Scenario(tuple(allies), tuple(enemies), limit=battle.limit, rules=rules)
