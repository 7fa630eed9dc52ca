"""Names and descriptions of probes and of third-party environments, without importing JAX."""

from __future__ import annotations

from jmarl.envs.grids.grid_names import (
    FORAGING,
    WAREHOUSES,
    matches_foraging,
    matches_warehouse,
)


PROBES = {
    "probe_constant": "one step with reward 1",
    "probe_observation": "one step; the reward is the sign that each agent observes",
    "probe_bandit": "one step; the last action has reward 1",
    "probe_matrix": "non-monotonic matrix game for two agents, one step",
    "probe_xor": "two agents must act differently, one step",
    "probe_xor_hidden": "probe_xor, where agents observe no difference between them",
    "probe_target": "continuous actions; hit the observed target, one step",
    "probe_two_phase": "reward 1 at each of two steps, then termination",
    "probe_two_phase_truncated": "reward 1 at each of two steps, then a time limit",
    "probe_delayed": "the first action decides the reward of the last step",
    "probe_cue": "memory: report at the last step the sign observed at the first",
    "probe_death": "probe_cue with agents that are dead in between",
    "probe_classes": "report an observed sign by the actions of a class",
}

JAXMARL = {
    "mpe_spread": ("MPE_simple_spread_v3", "three agents cover three landmarks"),
    "mpe_spread_continuous": (
        "MPE_simple_spread_v3",
        "mpe_spread with continuous actions",
    ),
    "mpe_reference": (
        "MPE_simple_reference_v3",
        "each of two agents communicates the other's target landmark",
    ),
    "mpe_speaker_listener": (
        "MPE_simple_speaker_listener_v4",
        "one agent communicates the target landmark, the other moves",
    ),
}
"""Short name -> (JaxMARL's id, description)."""

JAXMARL_PREFIX = "jaxmarl_"

JUMANJI_PREFIX = "jumanji_"
"""Prefix of Jumanji's forms of the warehouses and foraging tasks of ``envs/grids``."""
JUMANJI = {
    JUMANJI_PREFIX + name: description
    for name, description in (*WAREHOUSES.items(), *FORAGING.items())
}
"""The tasks of the MAM paper that Jumanji has: name -> description."""


def probe_names() -> list[tuple[str, str]]:
    """Return the name and description of every probe."""
    return list(PROBES.items())


def matches_probe(name: str) -> bool:
    """Return True if ``name`` is a probe."""
    return name in PROBES


def jaxmarl_names() -> list[tuple[str, str]]:
    """Return the name and description of JaxMARL environments with a short name."""
    return [(name, description) for name, (_, description) in JAXMARL.items()]


def matches_jaxmarl(name: str) -> bool:
    """Return True if ``name`` is a short name, or ``jaxmarl_`` followed by an id."""
    is_id = name.startswith(JAXMARL_PREFIX) and len(name) > len(JAXMARL_PREFIX)
    return name in JAXMARL or is_id


def jumanji_names() -> list[tuple[str, str]]:
    """Return the name and description of Jumanji's listed foraging and warehouse tasks."""
    return [(name, f"{text} (Jumanji)") for name, text in JUMANJI.items()]


def matches_jumanji(name: str) -> bool:
    """Return True if ``name`` is a foraging or warehouse task of Jumanji, of any size."""
    task = name.removeprefix(JUMANJI_PREFIX)
    return name != task and (matches_warehouse(task) or matches_foraging(task))
