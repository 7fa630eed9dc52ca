"""Latents of saved runs: recorded rows, written files, and runs without latents."""

import json

import jax
import numpy as np
import pytest

import jmarl
from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.runs.folder import write_config
from jmarl.saved import latents
from jmarl.training.build import build_run


SIZES = (
    "env=smax_2s3z",
    "network.torso=[8]",
    "network.memory_width=8",
    "network.head=[8]",
    "system.encoder_width=8",
)


def saved(folder, system, *words):
    """Write the configuration of a run, without a checkpoint."""
    config = jmarl.load_config(system, [*SIZES[:4], *words])
    folder.mkdir()
    write_config(folder, config)
    return config


def test_a_run_without_latents_is_an_error(tmp_path):
    for system, words in (("mappo", []), ("shppo", ["system.hete=false"])):
        folder = tmp_path / system
        saved(folder, system, *words)
        message = f"a run of {system} without latents; name a run of shppo with system"
        with pytest.raises(ConfigError, match=message):
            dispatch(["latents", f"run={folder}"])


def test_latents_are_recorded_with_class_health_and_phase(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    config = saved(folder, "shppo", SIZES[4])
    _, env, system = build_run(config)
    params = jax.jit(system.init)(jax.random.key(0)).params
    params = jax.tree.map(lambda x: x[None], params)
    monkeypatch.setattr(latents, "restore_params", lambda *_: (params, [0]))
    monkeypatch.setattr(latents, "BATCH", 4)
    assert dispatch(["latents", f"run={folder}", "episodes=6"]) == 0
    assert "6 episodes" in capsys.readouterr().out
    assert (folder / "latents.png").stat().st_size > 0
    report = json.loads((folder / "latents.json").read_text())
    rows = np.load(folder / "latents.npz")
    assert report["rows"] == len(rows["mu"]) and report["episodes"] == 6
    assert rows["mu"].shape == rows["latent"].shape == (report["rows"], 4)
    assert len(set(rows["unit_class"])) == 2
    assert (rows["mu"] != rows["latent"]).all()
    assert ((rows["health"] > 0) & (rows["health"] <= 1)).all()
    assert (rows["phase"] >= 0).all() and (rows["phase"] < 1).all()
    assert set(rows["retreat"][~np.isnan(rows["retreat"])]) == {0.0, 1.0}
    starts = rows["step"] == 0
    assert starts.sum() == 6 * env.spec.n_agents
    assert (rows["health"][starts] == 1).all()
