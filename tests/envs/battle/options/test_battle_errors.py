"""A mistake in a battle is one line with exit code 2, before anything is compiled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jmarl.cli import commands as cli
from jmarl.envs.battle.scenarios.scenario_file import parse
from jmarl.runs import run as run_module


FILE = """\
limit: 100
terrain: strip
allies:
  - units: {marine: 3}
    at: [9, 16]
enemies:
  - units: {zealot: 1}
    at: [23, 16]
"""
# Text to replace in the file, the new text, and the line and the rest of the error.
MISTAKES = {
    "unit": ("marine: 3", "marin: 3", 4, "unknown unit; did you mean marine?"),
    "player": (
        "limit: 100",
        "win_rates: {focuss: 0.5}",
        1,
        "unknown key; did you mean focus?",
    ),
    "terrain": ("strip", "stripe", 2, "unknown terrain; did you mean strip?"),
    "start in a wall": (
        "[9, 16]",
        "[9, 3]",
        5,
        "inside a wall of strip; choose a walkable point",
    ),
    "start off the map": (
        "[23, 16]",
        "[40, 16]",
        8,
        "off the map; x and y must lie in [0, 32)",
    ),
    "team of 0": ("zealot: 1", "zealot: 0", 7, "must lie in [1, 1280]"),
    "team too large": (
        "marine: 3",
        "marine: 1000, zealot: 281",
        3,
        "a team must have 1 to 1280 units, not 1281",
    ),
    "ability without targets": (
        "limit: 100",
        "abilities: {ward: {targets: none}}",
        1,
        "no targets; write targets: allies or self",
    ),
    "ward that does not last": (
        "limit: 100",
        "abilities: {ward: {duration: 0}}",
        1,
        "must lie in [0.01, 100000]",
    ),
    "spot that adds nothing": (
        "limit: 100",
        "abilities:\n  far: {like: spot, amount: 0}",
        2,
        "must lie in [0.01, 100000]",
    ),
    "negative cooldown": (
        "limit: 100",
        "units:\n  marine:\n    cooldown: -1",
        3,
        "must lie in [0, 100000]",
    ),
    "negative range": (
        "limit: 100",
        "abilities: {spot: {attack_range: -2}}",
        1,
        "must lie in [0, 64]",
    ),
    "arrival after the limit": (
        "{marine: 3}",
        "{marine: 3}\n    arrives: 100",
        5,
        "after the limit; must be at most 99",
    ),
    "key": ("limit", "limt", 1, "unknown key; did you mean limit?"),
    "field that the rules lack": (
        "limit: 100\nterrain: strip",
        "rules: smax\nunits: {marine: {shield: 3}}",
        2,
        "the smax rules have no shield; use rules: smac",
    ),
}
NAMES = {
    "smac_coridor": "unknown map coridor; did you mean smac_corridor?",
    "smacv2_teran_5v5": "unknown race teran; did you mean terran?",
    "smac_0m_vs_3m": "a team must have 1 to 1280 units, not 0",
    "smac_1281m": "a team must have 1 to 1280 units, not 1281",
    "smac_3q": "unknown unit letter q; use M marauder, ",
}


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch, tmp_path):
    """Fail if a run begins to compile."""

    def compile_run(*_, **__):
        pytest.fail("compiled")

    monkeypatch.setattr(run_module, "compile_run", compile_run)
    monkeypatch.chdir(tmp_path)


def error_of(capsys, arguments: Sequence[str]) -> str:
    """Return the only line that a command prints before it ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.count("\n") == 1
    return printed.err.rstrip("\n")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_names_its_line(mistake, capsys, tmp_path):
    old, new, line, rule = MISTAKES[mistake]
    (tmp_path / "b.yaml").write_text(FILE.replace(old, new, 1))
    error = error_of(capsys, ["train", "ippo", "env=battle", "env.scenario=b.yaml"])
    assert error.startswith(f"error: b.yaml:{line}: ")
    assert error.endswith(f": {rule}")
    assert [path.name for path in tmp_path.iterdir()] == ["b.yaml"]


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_in_a_name_names_the_nearest(name, capsys, tmp_path):
    error = error_of(capsys, ["train", "ippo", f"env={name}"])
    assert name in error
    assert NAMES[name] in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=battle"], "env.scenario='': no scenario; give the path of a"),
        (
            ["env=battle", "env.scenario=x.yaml"],
            "env.scenario=x.yaml: cannot be read: ",
        ),
        (["env=smac_3m", "env.pad=[2,5]"], "env.pad[0]=2: smaller than the team of 3"),
        (["env=smac_3m", "env.pad=[5,2]"], "env.pad[1]=2: smaller than the team of 3"),
        (["env=smac_3m", "env.pad=[-1,0]"], "env.pad[0]=-1: must lie in [0, 1280]"),
        (["env=smac_3m", "env.layout=clsh"], "env.layout='clsh': "),
        (["env=smac_3m", "env.prob_obs_enemy=2"], "env.prob_obs_enemy=2"),
        (["env=smac_3m", "env.cones=true"], "env.cones"),
        (["env=smac_3m+smacv2_zerg_5v5"], "smac_3m+smacv2_zerg_5v5: "),
    ],
)
def test_a_wrong_option_is_named(overrides, message, capsys, tmp_path):
    error = error_of(capsys, ["train", "ippo", *overrides])
    assert error.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_an_unknown_player_is_named(capsys):
    error = error_of(capsys, ["play", "env=smac_3m", "player=focuss"])
    assert "did you mean focus?" in error


def test_the_file_without_a_mistake_is_a_battle():
    assert parse(FILE, "b.yaml", "b").n_allies == 3
