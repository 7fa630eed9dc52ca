"""Environments of installed packages, which come in through entry points."""

import sys

import packages
import pytest

from jmarl import load_config
from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.envs import registry
from jmarl.training.build import build_env


PYPROJECT = """
[project]
name = "grids"
version = "1.2"

[project.entry-points."jmarl.envs"]
grid_small = "grids:small"
grid_plain = "grids:plain"
grid_broken = "broken_grids:make"
grid_missing = "grids:missing"
grid_number = "grids:number"
smax_3m = "grids:small"
"""
GRIDS = '''
import functools

from jmarl.envs import probes


def small(n_agents=2):
    """Agents on a grid.

    Details.
    """
    return probes.bandit(n_agents=n_agents)


plain = functools.partial(small)
number = 3
'''
BROKEN = "grids 1.2 cannot be imported (ModuleNotFoundError: No module named 'absent')"


@pytest.fixture(autouse=True)
def _grids(tmp_path, monkeypatch):
    (tmp_path / "grids.py").write_text(GRIDS)
    (tmp_path / "broken_grids.py").write_text("import absent")
    packages.install(monkeypatch, tmp_path, PYPROJECT)
    yield
    sys.modules.pop("grids", None)


def test_the_description_is_the_docstring_and_the_package():
    listed = dict(registry.names())
    assert listed["grid_small"] == "Agents on a grid (grids 1.2)"
    assert listed["grid_plain"] == "grids 1.2"


def test_options_reach_the_function():
    assert registry.make("grid_small").spec.n_agents == 2
    assert registry.make("grid_small", n_agents=3).spec.n_agents == 3


def test_a_package_that_cannot_be_imported_is_one_line_of_the_list(capsys):
    assert dispatch(["envs"]) == 0
    rows = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    listed = {row[0]: row[1] for row in rows if row}
    assert listed["grid_broken"] == f"{BROKEN}; repair or uninstall it"
    assert "no attribute 'missing'" in listed["grid_missing"]
    assert listed["grid_number"].startswith(
        "grids 1.2: grids:number must be a function"
    )
    assert {"smax_3m", "probe_bandit", "grid_small"} <= set(listed)


@pytest.mark.parametrize("name", ["probe_bandit", "grid_broken"])
def test_composing_imports_no_package(name):
    load_config("ippo", [f"env={name}"])
    assert "grids" not in sys.modules


def test_a_misspelled_name_imports_no_package():
    with pytest.raises(ConfigError, match="did you mean grid_small"):
        load_config("ippo", ["env=grid_smal"])
    assert "grids" not in sys.modules


def test_building_the_broken_environment_is_an_error_of_one_line():
    with pytest.raises(ConfigError) as error:
        build_env(load_config("ippo", ["env=grid_broken"]))
    assert str(error.value) == f"env=grid_broken: {BROKEN}; repair or uninstall it"


def test_a_package_replaces_no_environment_of_jmarl():
    assert registry.make("smax_3m").spec.n_agents == 3
    assert "grids" not in dict(registry.names())["smax_3m"]


def test_a_name_of_a_package_cannot_be_registered():
    with pytest.raises(ValueError, match="already registered"):
        registry.register("grid_broken", lambda: None)
