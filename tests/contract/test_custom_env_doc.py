"""The example of docs/how-to/environment.md conforms and is short."""

import pathlib
import runpy

import jax

from jmarl import envs
from jmarl.envs import registry
from jmarl.envs.conformance import check_env


EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "examples" / "rendezvous.py"


def test_example_registers_a_conforming_environment(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {})
    rendezvous = runpy.run_path(str(EXAMPLE))["rendezvous"]
    envs.register("rendezvous", rendezvous, "agents on a line must meet")
    env = envs.make("rendezvous", size=4)
    assert env.spec.outcomes == ("won",)
    assert ("rendezvous", "agents on a line must meet") in envs.names()
    check_env(env, jax.random.key(0))


def test_example_has_at_most_forty_lines():
    assert len(EXAMPLE.read_text().splitlines()) <= 40
