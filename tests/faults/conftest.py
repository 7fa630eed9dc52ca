"""Fixtures of the fault tests: compiled programs that are shared, and small disks."""

import subprocess

import pytest
import toy
from records import outcome

from jmarl.runs import run as run_module


toy.install()
COMPILED = []
"""Programs of ``toy.config()``, compiled by the first test that needs them."""


def share_programs(patch):
    def compile_run(*args, real=run_module.compile_run, **options):
        if not COMPILED:
            COMPILED.append(real(*args, **{**options, "fresh": True}))
        return COMPILED[0]

    patch.setattr(run_module, "compile_run", compile_run)


@pytest.fixture
def shared_programs(monkeypatch):
    """Compile the programs of ``toy.config()`` once for all tests."""
    share_programs(monkeypatch)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Return the outcome of a run without a fault."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        assert run_module.run(toy.config(run_dir=str(folder))) == 0
    return outcome(folder)


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of a size such as ``400k``; root only."""
    mounted = []

    def mount(size, options="rw"):
        folder = tmp_path / f"disk_{size}"
        folder.mkdir()
        options = f"size={size},{options}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a disk needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
