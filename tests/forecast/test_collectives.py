"""Eight devices of a target exchange gradients and metrics, but no arrays of environments."""

import importlib.util
import re

import pytest

from jmarl.forecast.compile_plan import compile_lowered
from jmarl.forecast.described import described_programs, load_config_for
from jmarl.forecast.hlo import parse
from jmarl.forecast.targets import find_target
from jmarl.training.programs import count_parameters, trace_chunk


ENVS = 64
STEPS = 16
SIZES = ("env=smax_3m", f"num_envs={ENVS}", f"rollout_length={STEPS}")
GRU = ("network=gru", "network.torso=[8]", "network.head=[8]", "network.memory_width=8")
SYSTEMS = {
    "mappo": (*GRU, "system.epochs=2", "system.minibatches=2"),
    "qmix": (
        *GRU,
        "system.batch_size=16",
        "system.replay_size=4096",
        "system.gradient_steps=2",
    ),
}
COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast"
    r"|ragged-all-to-all|reduce-scatter|send|recv)(-start)?"
)
METRICS_BYTES = 256
"""Largest reduction that is not a gradient: a few scalars."""
TARGETS = [("h100:8", "jax_plugins.xla_cuda12"), ("v5e:2x4", "libtpu")]


def collectives(system, name):
    """Return the collectives of a program that trains, and its number of parameters."""
    target = find_target(name)
    config = load_config_for(target, system, [*SIZES, *SYSTEMS[system]])
    with described_programs(config, target) as (programs, shapes, mesh):
        assert mesh.size == 8
        text = compile_lowered(trace_chunk(programs, shapes).lower()).as_text()
    instructions = (x for c in parse(text).computations.values() for x in c.values())
    found = [x for x in instructions if COLLECTIVE.fullmatch(x.opcode)]
    return found, count_parameters(shapes)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "module"), TARGETS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_only_collectives_add_gradients_and_metrics(system, target, module):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed: make plan-tools")
    found, parameters = collectives(system, target)
    words = {x.opcode.removesuffix("-start") for x in found}
    assert words == {"all-reduce"}
    sizes = sorted(x.nbytes for x in found)
    assert [size for size in sizes if size > METRICS_BYTES] == [4 * parameters], sizes
