"""The example in docs/how-to/environment.md runs as printed and is short."""

import pathlib
import re

import jax
import pytest

from jmarl import envs
from jmarl.envs import registry
from jmarl.envs.conformance import check_env


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "environment.md"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {})
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    return code


def test_example_registers_a_conforming_environment(example):
    env = envs.make("rendezvous", size=4)
    assert env.spec.outcomes == ("won",)
    assert ("rendezvous", "agents on a line meet") in envs.names()
    check_env(env, jax.random.key(0))


def test_example_has_at_most_forty_lines(example):
    assert len(example.splitlines()) <= 40
