"""``jmarl play``: its table and record, and errors before anything compiles."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.cli import commands as cli
from jmarl.cli import play as module
from jmarl.envs import football
from jmarl.results.intervals import Proportion, wilson_interval
from jmarl.training.scripted_play import play_program


def test_the_table_and_the_record_have_each_player_in_each_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, names = tmp_path / "r.json", ("probe_bandit", "probe_two_phase")
    arguments = [f"env={','.join(names)}", "player=random", "episodes=3", "seed=5"]
    assert cli.dispatch(["play", *arguments, f"json={path}"]) == 0
    record = json.loads(path.read_text())
    assert list(record["envs"]) == list(names)
    assert (record["seeds"], record["episodes"]) == ([5], 3)
    assert {"command", "commit", "device", "time"} <= record["environment"].keys()
    assert record["seconds"] == sum(env["seconds"] for env in record["envs"].values())
    results = record["envs"]["probe_two_phase"]["results"]["random"]
    assert [results[name][0]["mean"] for name in ("return", "length")] == [2.0, 2.0]
    first, *lines = capsys.readouterr().out.splitlines()
    assert "3 episodes" in first
    assert [line.split()[:2] for line in lines] == [[name, "random"] for name in names]


def test_results_are_those_of_the_evaluator_with_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = tmp_path / "r.json", "smac_2m_vs_1m"
    arguments = [f"env={name}", "player=random,focus", "episodes=8", f"json={path}"]
    assert cli.dispatch(["play", *arguments, "env.opponent=heuristic"]) == 0
    record = json.loads(path.read_text())
    assert record["options"] == {"opponent": "heuristic"}
    found = {
        player: {name: estimates[0] for name, estimates in by_name.items()}
        for player, by_name in record["envs"][name]["results"].items()
    }
    alone = play_program(envs.make(name, opponent="heuristic"), ["focus"], 8)
    expected = jax.jit(alone)(jnp.int32(0), jax.random.key(0))
    for metric, values in expected.items():
        mean = float(np.mean(values))
        assert found["focus"][metric]["mean"] == pytest.approx(mean, rel=1e-5)
    won = found["focus"]["won"]
    interval = wilson_interval(Proportion(won["mean"], 8))
    assert (won["low"], won["high"]) == pytest.approx(interval)
    assert won["mean"] > found["random"]["won"]["mean"]
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["random", "focus"]
    assert f"won {won['mean']:.3f} [{won['low']:.3f}, {won['high']:.3f}]" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: env: missing"),
        (["env=,"], "error: env=,: must be a name"),
        (["env=smac_3mm"], "error: smac_3mm: unknown map 3mm; did you mean smac_3m?"),
        (["env=smax_3m,smac_M3M2"], "error: smac_M3M2: "),
        (["env=smex_3m"], "error: env=smex_3m: unknown environment 'smex_3m'; did you"),
        (
            ["env=smac_3m", "player=focsu"],
            "error: env=smac_3m: player=focsu: unknown player; did you",
        ),
        (["env=smac_3m", "player="], "error: player=: must be a name"),
        (
            ["env=smac_3m,probe_bandit", "player=random,kite"],
            "error: env=probe_bandit: player=kite: unknown player; this environment has only",
        ),
        (
            ["env=probe_target", "player=random"],
            "error: env=probe_target: player=random",
        ),
        (
            ["env=football_corner", "player=random,run_shot_0.3"],
            "error: env=football_corner: player=run_shot_0.3: unknown player; did you mean run",
        ),
        (
            ["env=football_cornr"],
            "error: env=football_cornr: unknown environment 'football_cornr'; did you",
        ),
        (
            ["env=football_3_vs_12_with_keeper"],
            "error: scenario 3_vs_12_with_keeper: defenders=12: must lie in [0, 10]",
        ),
        (
            ["env=football_corner", "env.reward=goals"],
            "error: env.reward='goals': must be one of scoring, checkpoints, spectra",
        ),
        (
            ["env=probe_bandit", "file=a.gif"],
            "error: env=probe_bandit: has no scene to draw",
        ),
        (["env=smac_3m", "file=a.jpg"], "error: file=a.jpg: must end in .gif"),
        (
            ["env=smac_3m", "env.oponent=x"],
            "error: env.oponent='x': unknown key; did you",
        ),
        (["env=smac_3m", "env.opponent=["], "error: env.opponent=[: cannot be read"),
        (
            ["env=smac_3m", "env.opponent=healers_first"],
            "error: env.opponent='healers_first': must be one of orders, healer_first,",
        ),
        (["env=smac_3m", "episode=3"], "error: episode=3: unknown key; did you mean"),
        (["env=smac_3m", "episodes=0"], "error: episodes=0: must be at least 1"),
        (["env=smac_3m", "seed=-1"], "error: seed=-1: must be at least 0"),
        (["env=smac_3m", "json=/no/x"], "error: json='/no/x': cannot be written"),
        (["env=smac_3m", "json"], "error: json: expected key=value"),
    ],
)
def test_a_mistake_is_one_line_before_anything_compiles(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "play_env", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["play", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1 and not printed.out


def test_football_has_its_own_players_and_draws_the_first_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, script, options = "run_to_score", "run_shoot_0.3", {"episode_limit": 12}
    page, path = tmp_path / "episode.html", tmp_path / "r.json"
    arguments = [f"env=football_{name}", f"player={script}", "episodes=4", "seed=2"]
    outputs = [f"file={page}", f"json={path}", "env.episode_limit=12"]
    assert cli.dispatch(["play", *arguments, *outputs]) == 0
    same = football.play(name, script, 4, jax.random.key(2), **options)
    found = json.loads(path.read_text())["envs"][f"football_{name}"]["results"][script]
    assert found["length"][0]["mean"] == pytest.approx(same["mean_len"])
    assert found["won"][0]["mean"] == same["win"]
    drawn = capsys.readouterr().out.splitlines()[0]
    assert drawn.startswith(f"{script}: {same['length'][0]} steps, return 0, won 0,")
    assert page.stat().st_size > 1000
