"""Plans of a tuning: mistakes are one line before anything runs, and presets stand for a trial."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import time

import pytest
import yaml

from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.config.choices import systems, yaml_names
from jmarl.config.compose import load_config
from jmarl.config.yaml_files import preset_words
from jmarl.results.files import read_json
from jmarl.runs.folder import read_config
from jmarl.studies.tuning.run_tune import read_record, winner_preset
from jmarl.studies.tuning.search_space import default_space, read_space
from jmarl.studies.tuning.tune_plan import read_protocol
from jmarl.studies.tuning.tune_record import preset_text
from tests.studies.test_demo_study import kill


SMALL = [
    "env=probe_bandit",
    "num_envs=32",
    "rollout_length=8",
    "total_timesteps=4096",
    "eval.every=1024",
    "eval.episodes=16",
    "eval.absolute_factor=1",
]
SPACE = """\
title: two keys
parameters:
  system.lr: {log_uniform: [1e-3, 1e-2]}
  system.clip: {choices: [0.1, 0.2]}
"""


def space_file(folder, *lines):
    path = folder / "mine.yaml"
    text = "\n".join(f"  {line}" for line in lines)
    path.write_text(f"title: mine\nparameters:\n{text}\n")
    return str(path)


@pytest.mark.parametrize("system", systems())
def test_every_system_has_a_space(system):
    assert default_space(system) in yaml_names("space")


@pytest.mark.parametrize(
    ("space", "system"),
    [("ppo", "mappo"), ("mam_ppo", "mam_ppo"), ("pqn", "pqn_vdn"), ("replay", "qmix")],
)
def test_both_ends_of_every_interval_compose(space, system):
    assert default_space(system) == space
    for parameter in read_space(space).entries():
        for word in parameter.words():
            load_config(system, [word])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "parameters={}: must have at least one key"),
        ("system.lr: 0.1", "system.lr=0.1: expected one of choices, uniform"),
        (
            "system.lr: {uniform: [2, 1]}",
            "system.lr.uniform=.*empty interval; low must",
        ),
        ("system.lr: {uniform: [1, 1]}", "empty interval"),
        ("system.lr: {uniform: [1]}", "expected two numbers"),
        ("system.lr: {uniform: [0, 1e400]}", "must be finite"),
        ("system.lr: {uniform: [a, b]}", "expected two numbers"),
        ("system.lr: {log_uniform: [0, 1]}", "low must be greater than 0"),
        ("system.lr: {lognormal: [1, 2]}", "lognormal: unknown kind; expected one of"),
        ("system.lr: {log_unifrm: [1, 2]}", "unknown kind; did you mean log_uniform"),
        ("system.epochs: {int: [1, 2.5]}", "expected two integers"),
        ("system.epochs: {choices: []}", "must have at least two values"),
        ("system.epochs: {choices: [1, 1]}", "two choices are equal"),
        ("system.epochs: {choices: 1}", "expected a list"),
        ("seed: {int: [0, 5]}", "seed.*cannot be tuned"),
        ("eval.episodes: {int: [1, 5]}", "eval.episodes.*cannot be tuned"),
        (
            "system.lrr: {uniform: [0.1, 0.2]}",
            "system.lrr=.*unknown key; did you mean sys",
        ),
        ("system.gamma: {uniform: [0.9, 1.2]}", "system.gamma=1.2: must lie in"),
        ("network: {choices: [mlp, gruu]}", "network=gruu: unknown network"),
        ("system.minibatches: {choices: [4, 7]}", "minibatches=7"),
    ],
)
def test_a_wrong_space_is_an_error_before_anything_runs(tmp_path, line, message):
    path = space_file(tmp_path, line)
    if line == "{}":
        (tmp_path / "mine.yaml").write_text("title: mine\nparameters: {}\n")
    out = tmp_path / "out"
    words = ["ippo", *SMALL, f"space={path}", f"out={out}"]
    with pytest.raises(ConfigError, match=message) as error:
        dispatch(["tune", *words])
    assert str(error.value).startswith("space=") and "\n" not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "tune: names no system"),
        (["env=smax_3m"], "tune: names no system"),
        (["mapo"], "mapo: unknown system; did you mean mappo"),
        (["status"], "tune status: expected one folder"),
        (["ippo", "seeds=1"], "seeds=1: must be at least 2"),
        (["ippo", "trials=0"], "trials=0"),
        (["ippo", "jobs=0"], "jobs=0: must be at least 1"),
        (["ippo", "max_hours=-1"], "max_hours"),
        (["ippo", "pruner=medan"], "pruner=.*did you mean median"),
        (["ippo", "mode=best"], "mode='best': must be one of greedy, sampled"),
        (["ippo", "space=pppo"], "space=pppo: unknown space; did you mean ppo"),
        (["ippo", "space=none.yaml"], "space=none.yaml: cannot be read"),
        (["ippo", "protocol=mamm"], "protocol=mamm: unknown protocol"),
        (["ippo", *SMALL, "system.lr=0.1"], "lr.*is tuned by space=ppo; leave it out"),
        (["ippo", *SMALL, "num_seeds=3"], "num_seeds.*set by the tuning; use seeds="),
        (["ippo", *SMALL, "run_dir=x"], "run_dir.*use out=<folder>"),
        (["ippo", *SMALL, "metric=wonn"], "metric='wonn': unknown metric"),
        (["ippo", *SMALL, "warmup=4"], "warmup=4: must be less than the 4 evaluations"),
        (["ippo", *SMALL, "env=smax_3mm"], "env=smax_3mm"),
        (
            ["ippo", *SMALL, "num_env=3"],
            "num_env=3: unknown key; did you mean num_envs",
        ),
        (["ippo", *SMALL, "preset=x/y.yaml"], "preset='x/y.yaml': must be a file"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_runs(
    tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        dispatch(["tune", *words])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'jmarl\[tune\]'"):
        dispatch(["tune", "ippo", *SMALL])


def test_the_protocol_of_mam_is_that_of_its_preset():
    protocol = read_protocol("mam")
    assert protocol.options["trials"] == 40
    ours = load_config("mam_ppo", ["env=smax_5m_vs_6m", *protocol.overrides])
    preset = load_config("mam_ppo", ["experiment=smax_5m_vs_6m", "num_seeds=1"])
    assert ours == preset


def without_host(config):
    """Return a configuration without the keys that a preset leaves out."""
    default = load_config("ippo")
    return dataclasses.replace(
        config,
        seed=0,
        num_seeds=1,
        run_dir="",
        arch=default.arch,
        checkpoint=default.checkpoint,
        logger=default.logger,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["env=smax_5v5", "system.lr=3.21e-05", "total_timesteps=1e6"],
        ["network=gru", "network.torso=[32,16]", "system.huber_delta=0"],
        ["experiment=smax_5m_vs_6m", "eval.every=null", "system.popart=true"],
        ["curriculum=5v5_20v20", "env=smax_20v20", "logger=wandb", "num_seeds=3"],
        ["env=smax_3m", "env.opponent=heuristic", "on_nonfinite=stop", "seed=4"],
    ],
)
def test_a_preset_composes_into_the_configuration_it_stands_for(tmp_path, overrides):
    path = tmp_path / "best.yaml"
    path.write_text(preset_text(overrides, "a comment"))
    composed = load_config("mappo", [f"experiment={path}"])
    assert without_host(composed) == without_host(load_config("mappo", overrides))
    assert composed != load_config("mappo")


def test_arguments_take_precedence_over_a_users_preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        textwrap.dedent("""\
        # @package _global_
        defaults:
          - _mam
          - _self_
          - override /network: gru
        env: {name: smax_5v5}
        eval: {episodes: 16}
        system: {lr: 0.003}
        """)
    )
    words = [f"experiment={path}", "network=mlp", "env=smax_3m", "system.lr=0.004"]
    given = load_config("mappo", words)
    assert given.network == load_config("mappo", ["network=mlp"]).network
    assert given.env["name"] == "smax_3m" and given.system.lr == 0.004
    preset = load_config("mappo", [f"experiment={path}"])
    assert preset.network == load_config("mappo", ["network=gru"]).network
    assert (preset.num_seeds, preset.eval.episodes) == (10, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .No such file"),
        ("a: [", "cannot be read"),
        ("- a", "holds no preset"),
        ("defaults: [_none]", "defaults='_none': unknown preset"),
        ("system: {lrr: 1}", "system.lrr=1: unknown key; did you mean system.lr"),
    ],
)
def test_a_wrong_preset_is_an_error(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config("mappo", [f"experiment={path}"])


def test_hydra_reads_a_preset_as_yaml_does(tmp_path):
    path = tmp_path / "mine.yaml"
    stages = [
        {"env": "smax_3m", "fraction": 0.25},
        {"env": "smax_5v5", "fraction": 0.75},
    ]
    tree = {"env": {"name": "smax_5v5"}, "curriculum": {"stages": stages}}
    path.write_text(yaml.safe_dump(tree))
    assert 'env.name="smax_5v5"' in preset_words(str(path))
    config = load_config("mappo", [f"experiment={path}"])
    assert config.stage_envs == ("smax_3m", "smax_5v5")


@pytest.mark.slow
def test_a_killed_tuning_of_real_runs_continues_to_its_preset(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(SPACE)
    out = tmp_path / "out"
    own = [f"space={tmp_path / 'mine.yaml'}", "trials=2", f"out={out}"]
    words = ["tune", "ippo", *SMALL, *own]
    command = [sys.executable, "-m", "jmarl", *words]
    tuning = subprocess.Popen(command, start_new_session=True)
    trials = [out / "trials" / f"trial_{number:04d}" for number in range(2)]
    while not (trials[1] / "metrics.jsonl").exists():
        assert tuning.poll() is None
        time.sleep(0.1)
    kill(tuning)
    before = read_record(out)["trials"]
    assert [trial["state"] for trial in before] == ["complete", "running"]
    assert dispatch(words) == 0

    record = read_record(out)
    assert [trial["state"] for trial in record["trials"]] == ["complete"] * 2
    assert record["trials"][0] == before[0]
    assert record["trials"][1]["overrides"] == before[1]["overrides"]
    resumed = [read_json(trial / "versions.json")["resumed"] for trial in trials]
    assert [len(each) for each in resumed] == [0, 1]
    best = read_config(trials[record["best"]])
    preset = load_config("ippo", [f"experiment={out / 'best.yaml'}"])
    assert without_host(preset) == without_host(best)
    assert winner_preset(read_json(out / "tuning.json")) == (
        (out / "best.yaml").read_text()
    )
    printed = capsys.readouterr().out
    assert dispatch(["tune", "status", str(out)]) == 0
    assert capsys.readouterr().out in printed
