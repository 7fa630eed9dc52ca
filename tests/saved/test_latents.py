"""Latents of saved runs: recorded rows, written files, and runs without latents."""

import json

import jax
import numpy as np
import pytest

import jmarl
from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.envs import probes
from jmarl.envs.scene import Disc, Scene
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
    words = ["latents", f"run={folder}", "episodes=6"]
    monkeypatch.setattr("sys.argv", ["jmarl", *words])
    assert dispatch(words) == 0
    assert "6 episodes" in capsys.readouterr().out
    assert (folder / "latents.png").stat().st_size > 0
    report = json.loads((folder / "latents.json").read_text())
    rows = np.load(folder / "latents.npz")
    about = report["system"], report["env"], report["seed"], report["parameters"]
    assert about == ("shppo", config.env["name"], config.seed, "best")
    assert report["environment"]["command"] == " ".join(["jmarl", *words])
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


def disc(x, agent, fill):
    color = "tab:red" if agent is None else "tab:blue"
    return Disc(x, 0.0, 1.0, color, "a", fill, agent=agent)


def test_agents_are_found_in_a_scene_by_their_index():
    """Agent 1 walks away from the enemies and is withdrawn; agent 0 walks towards them."""
    enemies = [disc(20.0, None, 1.0), disc(0.0, None, 0.0)]
    first = [disc(10.0, 1, 0.25), *enemies, disc(12.0, 0, 1.0)]
    second = [*enemies, disc(13.0, 0, 0.5), disc(8.0, 1, 0.25)]
    last = [disc(13.0, 0, 0.5), *enemies]
    scenes = [
        Scene(32.0, 32.0, tuple(discs), (), "") for discs in (first, second, last)
    ]
    env = probes.bandit(n_agents=2)._replace(scene=lambda state: scenes[state])
    present = np.ones((3, 2), bool)
    health, retreat = latents._health_and_retreat(env, np.arange(3), present)
    np.testing.assert_array_equal(health, [[1.0, 0.25], [0.5, 0.25], [0.5, np.nan]])
    np.testing.assert_array_equal(retreat, [[0, 1], [0, np.nan], [np.nan, np.nan]])
