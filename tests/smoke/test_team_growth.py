"""Tests of battles of growing size on the command line: stages, warm start and transfer table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jmarl.cli import commands as cli
from jmarl.cli.process import exit_code


TINY = (
    "num_envs=8",
    "rollout_length=4",
    "eval.every=32",
    "eval.episodes=8",
    "eval.absolute_factor=0",
    "network.embed_dim=4",
    "network.n_head=1",
    "network.memory=none",
    "system.mixer.embed=4",
    "system.mixer.heads=1",
    "system.batch_size=8",
    "system.gradient_steps=1",
    "system.replay_size=64",
    "arch.compile_cache=",
)
STAGES = (
    "curriculum.stages=[{env: smax_2v2, fraction: 0.5}, {env: smax_3v3, fraction: 0.5}]"
)
TABLE_ROW = re.compile(
    r"^ +(\* )?(smax_\w+) .* (greedy|sampled) .*won", flags=re.MULTILINE
)


@pytest.mark.slow
def test_team_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def jmarl(*words: str) -> str:
        assert exit_code(lambda: cli.dispatch(words)) == 0
        return capsys.readouterr().out

    def train(*words: str) -> str:
        return jmarl("train", "spectra_qmix_plus", *TINY, *words)

    grown = train("env=smax_3v3", STAGES, "total_timesteps=64", "run_dir=grown")
    assert "stage 2 of 2, smax_3v3" in grown
    warm = ("env=smax_4v4", "init_from=grown")
    larger = train(*warm, "total_timesteps=32", "run_dir=larger")
    assert "starts with the best parameters of grown" in larger
    table = jmarl("transfer", "run=larger", "envs=smax_2v2,smax_4v4", "episodes=8")
    assert TABLE_ROW.findall(table) == [
        ("", "smax_2v2", "greedy"),
        ("", "smax_2v2", "sampled"),
        ("* ", "smax_4v4", "greedy"),
        ("* ", "smax_4v4", "sampled"),
    ]
    transfer = ["transfer", "run=larger", "envs=probe_cue"]
    assert exit_code(lambda: cli.dispatch(transfer)) == 2
    assert "actions of a unit have other widths" in capsys.readouterr().err
