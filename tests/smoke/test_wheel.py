"""Tests of an installation from the wheel: configurations inside, commands in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import jmarl
from jmarl.config.choices import configs_dir


ROOT = Path(jmarl.__file__).parents[1]
TINY = (
    "env=probe_two_phase",
    "num_envs=8",
    "rollout_length=4",
    "total_timesteps=32",
    "eval.episodes=8",
    "eval.absolute_factor=0",
    "network.torso=[4]",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the files of a source archive."""
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("jmarl", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    command = [*build, "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an environment with jmarl from the wheel and the dependencies of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    output = subprocess.check_output([python, "-c", code], text=True)
    purelib = Path(output.strip())
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    dependencies = sysconfig.get_path("purelib")
    (purelib / "dependencies.pth").write_text(f"{dependencies}\n")
    return python


def call(python: Path, folder: Path, *arguments: str) -> str:
    """Run Python in a folder, without the variables of this environment; return its output."""
    removed = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in removed}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_every_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = configs_dir()
    paths = [path.relative_to(folder) for path in folder.rglob("*.yaml")]
    assert {f"jmarl/configs/{path}" for path in paths} <= names
    assert "jmarl/py.typed" in names


def test_wheel_has_every_module(wheel: Path) -> None:
    """The build obeys .gitignore, which must not match a package."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "jmarl").rglob("*.py")}
    assert modules <= names


def test_package_is_that_of_the_wheel(python: Path, tmp_path: Path) -> None:
    code = (
        "import jmarl;"
        "from jmarl.config.choices import configs_dir;"
        "print(jmarl.__file__, configs_dir())"
    )
    package, configs = call(python, tmp_path, "-c", code).split()
    assert Path(package).is_relative_to(python.parents[1])
    assert Path(configs) == Path(package).parent / "configs"


def test_help_and_configurations_work_in_any_folder(
    python: Path, tmp_path: Path
) -> None:
    text = call(python, tmp_path, "-m", "jmarl.systems.rec_mam", "--help")
    assert "system.gamma=" in text
    script = str(python.with_name("jmarl"))
    assert "mam_ppo" in call(python, tmp_path, script, "systems")
    code = "import jmarl; print(jmarl.load_config('mam_ppo', ['env=smax_40v40']).env)"
    assert "smax_40v40" in call(python, tmp_path, "-c", code)


def test_one_update_trains_in_any_folder(python: Path, tmp_path: Path) -> None:
    call(python, tmp_path, "-m", "jmarl.systems.ippo", *TINY)
    assert list(tmp_path.glob("runs/ippo/probe_two_phase/*/metrics.jsonl"))
