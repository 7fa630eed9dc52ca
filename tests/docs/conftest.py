"""Load the examples of the documentation as if they were modules of jmarl."""

import importlib.util
import pathlib
import sys

import pytest


EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def load_system(monkeypatch):
    """Return a function that makes an example known as ``jmarl.systems.<name>``."""

    def load(name):
        path = EXAMPLES / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"jmarl.systems.{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
