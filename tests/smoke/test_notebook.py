"""Tests that the notebook runs from top to bottom in a kernel of this interpreter."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from PIL import Image

from jmarl.results.metrics_file import read_rows
from notebooks import (
    assert_committed_without_results,
    cell,
    code_cells,
    outputs_of_type,
    printed,
    read_notebook,
    run_notebook,
)


TINY = """\
ENV = "smax_2v2"
TOTAL_TIMESTEPS = 64
OVERRIDES = [
    *("num_envs=8", "rollout_length=4", "system.minibatches=1", "system.epochs=1"),
    *("network.embed_dim=8", "network.d_state=2"),
    *("eval.episodes=8", "eval.every=32", "eval.absolute_factor=0"),
]"""
NO_JAX = """\
import sys

assert 'jax' not in sys.modules, 'the notebook must leave the device to its commands'"""


def test_notebook_is_committed_without_results() -> None:
    assert_committed_without_results(read_notebook("mam_smax"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Run the notebook with tiny parameters; return it and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    home = tmp_path_factory.mktemp("home")
    notebook = read_notebook("mam_smax")
    notebook.cells.append(nbformat.v4.new_code_cell(NO_JAX))
    run_notebook(notebook, TINY, folder, home)
    return notebook, folder


@pytest.mark.slow
def test_every_cell_runs(executed: tuple[Any, Path]) -> None:
    notebook, _ = executed
    code = code_cells(notebook)
    outputs = [output for c in code for output in c.outputs]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for o in outputs if o.output_type == "error"]
    assert printed(cell(notebook, "devices")).count("  ok ") == 4


@pytest.mark.slow
def test_training_follows_the_parameters(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    rows = read_rows(folder / "runs" / "mam_smax" / "metrics.jsonl")
    assert [r["update"] for r in rows if r["kind"] == "eval"] == [0, 1, 2]
    assert [r["update"] for r in rows if r["kind"] == "train"] == [1, 2]
    output = printed(cell(notebook, "training"))
    assert "mam_ppo on smax_2v2" in output
    assert "\x1b" not in output


@pytest.mark.slow
def test_notebook_shows_the_curve_and_an_episode(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    (curve,) = outputs_of_type(cell(notebook, "curve"), "image/png")
    with Image.open(io.BytesIO(curve)) as picture:
        assert min(picture.size) > 100
    (episode,) = outputs_of_type(cell(notebook, "episode"), "image/gif")
    with Image.open(io.BytesIO(episode)) as picture:
        assert picture.n_frames > 1
    assert episode == (folder / "runs" / "mam_smax" / "episode.gif").read_bytes()


def fake_machine(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Simulate a machine.

    Args:
        monkeypatch: The fixture.
        device: A device file of a TPU, or the output of ``nvidia-smi`` on a GPU, or an
            empty string for a CPU.
    """
    is_tpu = device.startswith("/dev")
    has_smi = bool(device) and not is_tpu

    def glob(pattern: str) -> list[str]:
        return [device] if is_tpu and device.startswith(pattern[:7]) else []

    def run(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(stdout=f"{device}\n")

    monkeypatch.setattr("glob.glob", glob)
    monkeypatch.setattr("shutil.which", lambda _: "nvidia-smi" if has_smi else None)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


@pytest.mark.parametrize(
    ("device", "source", "removed", "installed"),
    [
        ("", "jmarl", None, "jmarl"),
        ("", "./x", None, "./x"),
        ("/dev/vfio/0", "jmarl", None, "jmarl[tpu]"),
        (
            "/dev/accel0",
            "git+https://example.org/x",
            None,
            "jmarl[tpu] @ git+https://example.org/x",
        ),
        ("580.65.06", "./x", "cuda12", "./x[cuda13]"),
        ("550.54.15", "jmarl", "cuda13", "jmarl[cuda12]"),
        ("no device was found", "jmarl", None, "jmarl"),
    ],
)
def test_installation_fits_the_machine(
    device: str,
    source: str,
    removed: str | None,
    installed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_machine(monkeypatch, device)
    calls: list[tuple[str, ...]] = []

    def python(*words: str) -> None:
        calls.append(words)

    scope = {"SOURCE": source, "subprocess": subprocess, "python": python}
    exec(cell(read_notebook("mam_smax"), "installation").source, scope)
    install = ("-m", "pip", "install", "-q", installed)
    plugins = (f"jax-{removed}-plugin", f"jax-{removed}-pjrt")
    uninstall = ("-m", "pip", "uninstall", "-q", "-y", *plugins)
    assert calls == ([uninstall, install] if removed else [install])


def test_folder_of_a_checkout_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jmarl").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    finders = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.delitem(sys.modules, "jmarl")
    importlib.invalidate_caches()
    source = cell(read_notebook("mam_smax"), "installation").source
    with pytest.raises(ValueError, match="SOURCE is empty"):
        exec(source, {"SOURCE": "", "python": None})


def test_failing_command_fails_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    exec(cell(read_notebook("mam_smax"), "processes").source, scope)
    with pytest.raises(RuntimeError, match="exit code 2"):
        scope["python"]("-m", "jmarl.systems.mam_ppo", "env=smax_3n")
    assert "error: env=smax_3n" in capsys.readouterr().out
