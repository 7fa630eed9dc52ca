"""The wheel alone is enough: configurations inside, commands that work from any folder."""

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
TINY = "env=probe_two_phase num_envs=8 rollout_length=4 total_timesteps=32 eval.episodes=8 eval.absolute_factor=0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a source archive holds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("jmarl", "configs"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with jmarl from the wheel alone; its dependencies are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        text=True,
    ).strip()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    Path(purelib, "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def call(python: Path, folder: Path, *arguments: str) -> str:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
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


def test_the_wheel_holds_every_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"jmarl/configs/{path.relative_to(configs_dir())}"
        for path in configs_dir().rglob("*.yaml")
    }
    assert wanted <= names
    assert "jmarl/py.typed" in names


def test_the_package_is_the_one_of_the_wheel(python: Path, tmp_path: Path) -> None:
    code = "import jmarl; from jmarl.config.choices import configs_dir; print(jmarl.__file__, configs_dir())"
    package, configs = call(python, tmp_path, "-c", code).split()
    assert Path(package).is_relative_to(python.parents[1])
    assert Path(configs) == Path(package).parent / "configs"


def test_help_and_composition_work_from_elsewhere(python: Path, tmp_path: Path) -> None:
    assert "system.gamma=" in call(
        python, tmp_path, "-m", "jmarl.systems.rec_mam", "--help"
    )
    assert "mam_ppo" in call(
        python, tmp_path, str(python.with_name("jmarl")), "systems"
    )
    code = "import jmarl; print(jmarl.load_config('mam_ppo', ['env=smax_40v40']).env)"
    assert "smax_40v40" in call(python, tmp_path, "-c", code)


def test_one_update_trains_from_elsewhere(python: Path, tmp_path: Path) -> None:
    call(
        python, tmp_path, "-m", "jmarl.systems.ippo", *TINY.split(), "network.torso=[4]"
    )
    assert list(tmp_path.glob("runs/ippo/probe_two_phase/*/metrics.jsonl"))
