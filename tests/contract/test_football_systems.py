"""Every system trains, is evaluated, saved and resumed on football."""

import dataclasses

import pytest
from interruption import compile_once, interrupt_after

import jmarl
from jmarl.config.choices import systems
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
from tools.compare_runs import final_leaves


ENV = "env=football_3_vs_1_with_keeper"
TINY = (
    "num_envs=4",
    "rollout_length=8",
    "total_timesteps=64",
    "eval.every=32",
    "eval.episodes=4",
    "eval.absolute_factor=1",
    "env.episode_limit=20",
    "arch.updates_per_chunk=1",
    "logger=none",
)
ENTITY_SYSTEMS = ("hpn_mappo", "hpn_qmix", "updet_qmix", "spectra_qmix_plus")
CGI = ("pqn_u_qmix", "u_mappo", "u_qmix", "u_vdn")
"""Systems that predict other groups of agents, of which football has one only."""
CASES = [
    *((name,) for name in systems() if name not in CGI),
    *((name, "system.cgi.weight=0") for name in CGI),
    *((name, "env.passes=aimed") for name in ENTITY_SYSTEMS),
    ("mappo", "env.obs=simple115"),
]
FAST = ("mappo",)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id="-".join(case), marks=[] if case == FAST else [pytest.mark.slow]
        )
        for case in CASES
    ],
)
def test_a_system_trains_is_saved_and_resumed(case, tmp_path, monkeypatch):
    name, *options = case
    config = jmarl.load_config(name, [ENV, *TINY, *options])
    config = dataclasses.replace(config, run_dir=str(tmp_path / "run"))
    compile_once(monkeypatch)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run(config) == 75
    assert final_leaves(tmp_path / "run")["step"] == 1
    assert run(resume_config(str(tmp_path / "run"))) == 0
    assert final_leaves(tmp_path / "run")["step"] == 2
