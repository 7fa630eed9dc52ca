"""The notebook works from top to bottom in a kernel of this interpreter, and is committed as it was written."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

import jmarl
from jmarl.runs.loggers import read_rows


ROOT = Path(jmarl.__file__).parents[1]
PATH = ROOT / "notebooks" / "mam_smax.ipynb"
TINY = """\
ENV = "smax_2v2"
TOTAL_TIMESTEPS = 64
OVERRIDES = [
    *("num_envs=8", "rollout_length=4", "system.minibatches=1", "system.epochs=1"),
    *("network.embed_dim=8", "network.d_state=2", "eval.episodes=8", "eval.every=32", "eval.absolute_factor=0"),
]"""
ALONE = "import sys\nassert 'jax' not in sys.modules, 'the notebook must leave the device to its commands'"


def read() -> Any:
    return nbformat.read(PATH, as_version=4)


def cell(notebook: Any, name: str) -> Any:
    (found,) = (c for c in notebook.cells if c.id == name)
    return found


def test_the_notebook_is_committed_without_results() -> None:
    notebook = read()
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.outputs == [] and c.execution_count is None for c in code)
    assert [c.id for c in code if "parameters" in c.metadata.get("tags", [])] == [
        "parameters"
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook after a run with tiny parameters, and the folder that it ran in."""
    folder, home = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("home")
    notebook = read()
    names = [c.id for c in notebook.cells]
    notebook.cells.insert(
        names.index("parameters") + 1, nbformat.v4.new_code_cell(TINY)
    )
    notebook.cells.append(nbformat.v4.new_code_cell(ALONE))
    # without folders of kernels there is one: this interpreter's
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    kernel.connection_file = str(home / "kernel.json")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(home),
        "MPLBACKEND": "",
    }
    client = NotebookClient(
        notebook, km=kernel, timeout=400, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment, cleanup_kc=True)
    return notebook, folder


def data(cell: Any, kind: str) -> list[bytes]:
    """What a cell showed of a kind."""
    return [
        base64.b64decode(o.data[kind])
        for o in cell.outputs
        if kind in o.get("data", {})
    ]


def text(cell: Any) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def test_every_cell_runs(executed: tuple[Any, Path]) -> None:
    notebook, _ = executed
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert text(cell(notebook, "devices")).count("  ok ") == 4


def test_it_trains_what_its_parameters_say(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    rows = read_rows(folder / "runs" / "mam_smax" / "metrics.jsonl")
    assert [r["update"] for r in rows if r["kind"] == "eval"] == [0, 1, 2]
    assert [r["update"] for r in rows if r["kind"] == "train"] == [1, 2]
    said = text(cell(notebook, "training"))
    assert "mam_ppo on smax_2v2" in said
    assert "\x1b" not in said


def test_it_shows_the_curve_and_an_episode(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    (curve,) = data(cell(notebook, "curve"), "image/png")
    with Image.open(io.BytesIO(curve)) as picture:
        assert min(picture.size) > 100
    (episode,) = data(cell(notebook, "episode"), "image/gif")
    with Image.open(io.BytesIO(episode)) as picture:
        assert picture.n_frames > 1
    assert episode == (folder / "runs" / "mam_smax" / "episode.gif").read_bytes()


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
def test_it_installs_what_the_machine_needs(
    device: str,
    source: str,
    removed: str | None,
    installed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, ...]] = []
    is_file, is_gpu = (
        device.startswith("/dev"),
        bool(device) and not device.startswith("/dev"),
    )
    monkeypatch.setattr(
        "glob.glob",
        lambda pattern: [device] if is_file and device.startswith(pattern[:7]) else [],
    )
    monkeypatch.setattr("shutil.which", lambda _: "nvidia-smi" if is_gpu else None)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=f"{device}\n")
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    scope = {
        "SOURCE": source,
        "subprocess": subprocess,
        "python": lambda *words: calls.append(words),
    }
    exec(cell(read(), "installation").source, scope)
    uninstall = (
        "-m",
        "pip",
        "uninstall",
        "-q",
        "-y",
        f"jax-{removed}-plugin",
        f"jax-{removed}-pjrt",
    )
    assert calls == [
        *([uninstall] if removed else []),
        ("-m", "pip", "install", "-q", installed),
    ]


def test_the_folder_of_a_checkout_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jmarl").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(
        sys,
        "meta_path",
        [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()],
    )
    monkeypatch.delitem(sys.modules, "jmarl")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="SOURCE is empty"):
        exec(cell(read(), "installation").source, {"SOURCE": "", "python": None})


def test_a_command_that_fails_fails_its_cell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scope: dict[str, Any] = {}
    exec(cell(read(), "processes").source, scope)
    with pytest.raises(RuntimeError, match="exit code 2"):
        scope["python"]("-m", "jmarl.systems.mam_ppo", "env=smax_3n")
    assert "error: env=smax_3n" in capsys.readouterr().out
