"""Zero-shot grids: files, checks before the first episode, and a whole transfer."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import jmarl
from jmarl.cli import commands as cli
from jmarl.config import ConfigError, EvalConfig
from jmarl.config.choices import yaml_names
from jmarl.envs import probes
from jmarl.results.grid_table import estimate_text
from jmarl.results.intervals import seed_interval, win_rate_variance
from jmarl.results.machine import versions
from jmarl.results.zero_shot import retention
from jmarl.runs import folder as run_folder
from jmarl.runs.run import run
from jmarl.saved import transfer_grid
from jmarl.saved.evaluate_saved import evaluate_run, play
from jmarl.saved.grid_cells import build_cells, is_same_env, team_sizes
from jmarl.saved.grid_file import read_grid
from jmarl.saved.transfer_grid import transfer
from jmarl.training.build import build_run, make_env


MEDIC = ["env=battle", "env.scenario=medic"]
DUELS = """\
title: duels
env: duel_{allies}v{enemies}
allies: [1, 2]
enemies: [1]
"""
MARINES = """\
title: teams of marines
env: smac_{allies}_vs_{enemies}
allies: [2m, 5m]
enemies: [4m]
"""


def duel(allies: int, enemies: int):
    """Build ``bandit`` with a winner drawn with odds of ``allies`` to ``enemies``."""
    base = probes.bandit(n_agents=allies)

    def with_winner(key, timestep):
        drawn = jax.random.uniform(key, timestep.last.shape)
        won = drawn < allies / (allies + enemies)
        return timestep.replace(info={"won": won.astype(jnp.float32)})

    def reset(key, batch):
        state, timestep = base.reset(key, batch)
        return state, with_winner(key, timestep)

    def step(key, state, action):
        state, timestep = base.step(key, state, action)
        return state, with_winner(key, timestep)

    spec = base.spec._replace(outcomes=("won",))
    return base._replace(name="duel", spec=spec, reset=reset, step=step)


@pytest.fixture(scope="module", autouse=True)
def duels():
    toy.install()
    sizes = [(n, m) for n in (1, 2) for m in (1, 2)]
    factories = {f"duel_{n}v{m}": functools.partial(duel, n, m) for n, m in sizes}
    with toy.registered(factories), toy.teams():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folder of two equal runs with three seeds, and of one with one seed."""
    folder = tmp_path_factory.mktemp("runs")
    brief = {"total_timesteps": 128, "eval": EvalConfig(4, 128, 0)}
    for name, seeds in {"first": 3, "alone": 1}.items():
        config = toy.config(env={"name": "duel_2v1"}, num_seeds=seeds, **brief)
        assert run(dataclasses.replace(config, run_dir=str(folder / name))) == 0
    shutil.copytree(folder / "first", folder / "second")
    return folder


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return str(path)


@pytest.fixture
def grid(tmp_path):
    return write(tmp_path / "duels.yaml", DUELS)


def test_a_grid_of_two_runs(runs, grid, tmp_path, monkeypatch, capsys):
    folders = f"{runs / 'first'},{runs / 'second'}"
    monkeypatch.setattr("sys.argv", ["jmarl", "transfer", folders])
    json_file = tmp_path / "out.json"
    protocol = {"episodes": 32, "seed": 5}
    assert transfer(folders, grid=grid, json=str(json_file), **protocol) == 0
    printed = capsys.readouterr().out
    record = json.loads(json_file.read_text())
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"

    host = record["environment"]
    assert host["commit"] == versions()["commit"]
    assert host["command"] == f"jmarl transfer {folders}"

    labels = ["1 vs 1", "2 vs 1"]
    assert list(record["cells"]) == labels
    assert record["runs"]["first"]["training"]["cell"] == "2 vs 1"
    assert printed.count("ETA") == 4 and "[4/4] second, 2 vs 1: win rate" in printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for label, own in record["runs"].items():
        base = own["training"]["score"]
        for env in labels:
            check_cell(own["envs"][env], base)
            numbers = [own["envs"][env][kind] for kind in ("score", "retention")]
            row = " ".join([env, label, *map(estimate_text, numbers)])
            assert any(row in line for line in lines)
    assert [test["p_holm"] for test in record["comparisons"]] == [1.0, 1.0]

    assert evaluate_run(str(runs / "first"), json=str(json_file), **protocol) == 0
    evaluated = json.loads(json_file.read_text())
    training = record["runs"]["first"]["training"]
    assert {key: training[key] for key in evaluated} == evaluated


def test_an_interrupted_grid_continues_where_it_stopped(
    runs, grid, tmp_path, monkeypatch, capsys
):
    json_file, folder = tmp_path / "out.json", str(runs / "first")
    arguments = {"grid": grid, "json": str(json_file)}
    assert transfer(folder, **arguments, episodes=32) == 0
    whole = json.loads(json_file.read_text())
    json_file.unlink()

    plays = iter([play, interrupt])
    monkeypatch.setattr(transfer_grid, "play", lambda *args: next(plays)(*args))
    with pytest.raises(KeyboardInterrupt):
        transfer(folder, **arguments, episodes=32)
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert not json_file.exists()

    plays = iter([play])
    capsys.readouterr()
    assert transfer(folder, **arguments, episodes=32) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 evaluations are those of an interrupted call" in printed
    assert "[2/2]" in printed and "[1/2]" not in printed
    again = json.loads(json_file.read_text())
    assert again | {"environment": whole["environment"]} == whole
    assert not list(tmp_path.glob("*.partial.json"))


def test_results_of_other_arguments_are_not_reused(runs, grid, tmp_path, monkeypatch):
    arguments = {"grid": grid, "json": str(tmp_path / "out.json")}
    plays = iter([play, interrupt, play, play])
    monkeypatch.setattr(transfer_grid, "play", lambda *args: next(plays)(*args))
    with pytest.raises(KeyboardInterrupt):
        transfer(str(runs / "first"), **arguments, episodes=32)
    assert transfer(str(runs / "first"), **arguments, episodes=48) == 0
    assert not list(plays)


def interrupt(*args):
    raise KeyboardInterrupt


def check_cell(cell, base):
    """Compare score and retention with those of the win rates of the seeds."""
    won = np.array([seed["mean"] for seed in cell["results"]["greedy"]["won"]])
    variance = win_rate_variance(won.mean(), len(won), cell["episodes"])
    mean, low, high = seed_interval(won, variance)
    expected = mean, max(low, 0.0), min(high, 1.0)
    np.testing.assert_allclose(bounds_of(cell["score"]), expected)
    assert cell["retention"] == retention(cell["score"], base)
    assert cell["retention"]["mean"] == pytest.approx(won.mean() / base["mean"])


def bounds_of(estimate):
    return tuple(estimate[key] for key in ("mean", "low", "high"))


def test_a_run_of_one_seed_trained_elsewhere(runs, tmp_path, capsys):
    text = DUELS.replace("allies: [1, 2]", "allies: [1]")
    path = write(tmp_path / "ones.yaml", text)
    folder = runs / "alone"
    assert transfer(str(folder), grid=path, episodes=32) == 0
    record = json.loads((folder / "grid_ones.json").read_text())
    assert (folder / "grid_ones.png").exists()
    assert record["runs"]["alone"]["training"]["cell"] == ""
    assert record["comparisons"] == []
    table = capsys.readouterr().out
    assert "*  duel_2v1     alone" in table
    for env in record["runs"]["alone"]["envs"].values():
        assert env["retention"]["note"] == "one seed"
        assert f"{env['score']['mean']:.3f} (one seed)" in table


def test_environments_without_a_winner_are_scored_by_the_return(runs, tmp_path, capsys):
    text = DUELS.replace("duel_{allies}v{enemies}", "bandit_{allies}")
    text = text.replace("enemies: [1]\n", "").replace("[1, 2]", "[3]")
    path, json_file = write(tmp_path / "x.yaml", text), tmp_path / "x.json"
    assert transfer(str(runs / "alone"), grid=path, json=str(json_file)) == 0
    record = json.loads(json_file.read_text())
    assert record["metric"] == "return" and list(record["cells"]) == ["3"]
    assert "return" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": "smac_MM2"}, "grid=smac_MM2: unknown grid; did you mean smac_MMM2?"),
        (
            {"grid": "x"},
            "grid=x: unknown grid; expected one of battle_small, smac_MMM2",
        ),
        ({"grid": "x.yaml"}, "grid=x.yaml: cannot be read (No such file or directory)"),
        ({"grid": "smax", "envs": "smax_3v3"}, "grid='smax': cannot be combined with"),
        ({}, "envs='': names no environment; give envs or grid"),
        ({"grid": "smax", "run": "nowhere"}, "run=nowhere: no run folder"),
        ({"grid": "smax", "run": ","}, "run=',': must name a run folder"),
        ({"grid": "smax", "run": "a,b,a"}, "run='a,b,a': names a folder twice"),
        ({"grid": "smax", "json": "x.png"}, "json='x.png': must end in .json"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message):
    with pytest.raises(ConfigError) as error:
        transfer(**{"run": "nowhere", **arguments})
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "holds no grid; expected the keys title, env, options, allies"),
        ("env: duel_1v1", "title: missing"),
        ("a: [", "cannot be read (while parsing"),
        (f"{DUELS}alies: [3]", "alies: unknown key; did you mean allies?"),
        (f"{DUELS}cells: [[1, 2]]", "cells=((1, 2),): give either cells, or the axes"),
        ("title: x\nenv: duel_1v1", "cells=(): give either cells, or the axes"),
        (
            "title: x\nenv: duel_1v1\nallies: [1, 2]",
            "env='duel_1v1': 1 and 2 are equal;",
        ),
        ("title: x\nenv: duel_1v1\nallies: 3", "allies=3: expected a list"),
        (
            "title: x\nenv: a{allies}\nallies: [2m, 3n]\nteams: {2m: {}, 3m: {}}",
            "teams='3n': has no such label; known: 2m, 3m",
        ),
        (
            "title: x\nenv: a{allies}\ncells: [[1, 2], [1, 2]]",
            "cells=((1, 2), (1, 2)): a",
        ),
    ],
)
def test_a_wrong_grid_file_is_one_line(text, message, tmp_path):
    path = write(tmp_path / "wrong.yaml", text)
    with pytest.raises(ConfigError) as error:
        read_grid(path)
    assert str(error.value).startswith(f"grid={path}: {message}")
    assert "\n" not in str(error.value)


def write_run(folder, system, *overrides):
    """Write a run folder without a checkpoint, which no check before evaluation reads."""
    folder.mkdir(exist_ok=True)
    run_folder.write_config(folder, jmarl.load_config(system, overrides))
    return str(folder)


def error_of(folder, grid):
    with pytest.raises(ConfigError) as error:
        transfer(folder, grid=grid)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_grid_larger_than_the_padding_names_the_required_padding(tmp_path):
    grid = write(tmp_path / "marines.yaml", MARINES)
    folder = write_run(tmp_path / "run", "mappo", "env=smac_3m", "env.pad=[4,3]")
    assert error_of(folder, grid) == (
        "grid=marines: 2m vs 4m: 2 allies against 4 enemies exceed env.pad=[4, 3]; "
        "train the run with env.pad=[5, 4]"
    )
    padded = write_run(tmp_path / "padded", "mappo", "env=smac_3m", "env.pad=[5,4]")
    assert error_of(padded, grid) == f"run={padded}: holds no checkpoint yet"


def test_an_entity_network_needs_no_padding(tmp_path):
    grid = read_grid(write(tmp_path / "marines.yaml", MARINES))
    config = jmarl.load_config("hpn_mappo", ["env=smac_3m", "env.pad=[4,3]"])
    cells = build_cells(build_run(config), grid)
    sizes = [team_sizes(cell.env.spec) for cell in cells.values()]
    assert sizes == [(2, 4), (5, 4)]


def test_parameters_that_do_not_fit_name_the_fix(tmp_path):
    grid = write(tmp_path / "marines.yaml", MARINES + "options: {heal_actions: true}")
    folder = write_run(tmp_path / "run", "mappo", "env=smac_3m")
    error = error_of(folder, grid)
    assert error.startswith("grid=marines: 2m vs 4m: env=smac_2m_vs_4m: parameter ")
    fix = ", or train the run with env.heal_actions=true env.pad=[5, 4]"
    assert error.endswith(fix)
    folder = write_run(tmp_path / "other", "mappo", "env=smax_2s3z")
    error = error_of(folder, "smax")
    assert error.startswith("grid=smax: 3 vs 3: env=smax_3v3: parameter params/")
    assert "use an agent that reads entities" in error and "env.pad" not in error


def test_an_environment_that_cannot_be_built_is_an_error(tmp_path):
    grid = write(tmp_path / "marines.yaml", MARINES.replace("5m", "5w"))
    folder = write_run(tmp_path / "run", "hpn_mappo", "env=smac_3m")
    assert error_of(folder, grid).startswith(
        "grid=marines: 5w vs 4m: smac_5w_vs_4m: unknown unit letter w; use"
    )


def test_all_errors_come_before_the_first_episode(runs, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise AssertionError("an episode was played")

    monkeypatch.setattr(transfer_grid, "play", fail)
    grid = write(tmp_path / "g.yaml", DUELS.replace("enemies: [1]", "enemies: [1, 9]"))
    arguments = [f"run={runs / 'first'},{runs / 'second'}", f"grid={grid}"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["transfer", *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(
        f"error: run={runs / 'first'}: grid=g: 1 vs 9: env=duel_1v9: unknown environment"
    )
    assert printed.count("\n") == 1


def test_labels_of_runs_are_short_and_distinct():
    assert transfer_grid.run_labels(["runs/a", "runs/b"]) == ["a", "b"]
    assert transfer_grid.run_labels(["x/0", "y/0"]) == ["x/0", "y/0"]


SIZES = {
    "battle_small": (12, (5, 3)),
    "smac_MMM2": (11, (16, 19)),
    "smacv2_terran": (9, (20, 23)),
    "smax": (8, (20, 20)),
}
"""Number of environments and largest teams of each grid."""


def test_all_grids_have_a_test():
    assert yaml_names("grid") == sorted(SIZES)
    assert all(name in cli.COMMANDS["transfer"].help for name in SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_the_environments_of_a_grid_can_be_built(name):
    cells = list(read_grid(name).environments())
    sizes = []
    for cell in cells:
        options = {k: v for k, v in cell.options.items() if v is not None}
        sizes.append(team_sizes(make_env(cell.env, options).spec))
    largest = tuple(map(max, zip(*sizes, strict=True)))
    assert (len(cells), largest) == SIZES[name]


@pytest.mark.parametrize(
    "cells",
    [
        [("3m1d", "2z"), ("2m1d", "1z"), ("3m2d", "3z")],
        pytest.param([], marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_flat_networks_fit_the_small_grid_with_its_padding(cells):
    config = jmarl.load_config("mappo", [*MEDIC, "env.pad=[5,3]"])
    built = build_cells(build_run(config), part_of("battle_small", cells))
    own = [label for label, cell in built.items() if is_same_env(config, cell.config)]
    assert own == ["3m1d vs 2z"] and len(built) == (len(cells) or 12)


@pytest.mark.parametrize(
    "cells",
    [
        [("7m2M", "8m3M1d"), ("4m1M1d", "4m2M1d")],
        pytest.param([], marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_entity_networks_fit_the_teams_around_mmm2(cells):
    config = jmarl.load_config("hpn_mappo", ["env=smac_MMM2"])
    built = build_cells(build_run(config), part_of("smac_MMM2", cells))
    assert len(built) == (len(cells) or 11)


def part_of(name, cells):
    """Return some cells of a grid, or all of it."""
    grid = read_grid(name)
    changes = {"allies": (), "enemies": (), "cells": tuple(cells)}
    return dataclasses.replace(grid, **changes) if cells else grid
