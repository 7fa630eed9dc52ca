"""Names and one-line descriptions of probes and of environments of JaxMARL and Jumanji, without importing JAX."""

from __future__ import annotations

import re


PROBES = {
    "probe_constant": "one step that pays 1",
    "probe_observation": "one step that pays the sign each agent sees",
    "probe_bandit": "one step that pays the last action",
    "probe_matrix": "a non-monotonic game of one move for two agents",
    "probe_xor": "two agents must act differently",
    "probe_target": "continuous: hit the point that is seen",
    "probe_two_phase": "a reward of 1 at each of two steps",
    "probe_two_phase_truncated": "the same, cut by a time limit",
    "probe_delayed": "the first action is paid at the last step",
    "probe_cue": "report at the last step what was seen at the first",
    "probe_death": "the same, with agents that are dead in between",
}

JAXMARL = {
    "mpe_spread": ("MPE_simple_spread_v3", "three agents cover three landmarks"),
    "mpe_spread_continuous": ("MPE_simple_spread_v3", "the same, continuous actions"),
    "mpe_reference": (
        "MPE_simple_reference_v3",
        "two agents tell each other their landmark",
    ),
    "mpe_speaker_listener": (
        "MPE_simple_speaker_listener_v4",
        "one agent speaks, the other moves",
    ),
}
"""Short name -> (JaxMARL's id, one line)."""

PREFIX = "jaxmarl_"

LBF = r"lbf_(?:(\d+)s-)?(\d+)x(\d+)-(\d+)p-(\d+)f(-coop)?"
RWARE = r"rware_(tiny|small|medium|large)-(\d+)ag(-(easy|hard))?"
JUMANJI = {
    "rware_tiny-2ag": "two robots bring shelves to a goal, on one row of shelf clusters",
    "rware_tiny-4ag": "four robots there",
    "rware_small-4ag": "four robots on two rows",
    "lbf_8x8-2p-2f-coop": "two players lift food together, on a grid of 8 x 8",
    "lbf_2s-8x8-2p-2f-coop": "the same, seeing two cells far",
    "lbf_10x10-3p-3f": "three players, three food items",
    "lbf_2s-10x10-3p-3f": "the same, seeing two cells far",
    "lbf_15x15-3p-5f": "three players, five food items, a large grid",
    "lbf_15x15-4p-3f": "four players, three food items",
    "lbf_15x15-4p-5f": "four players, five food items",
}
"""The tasks of the MAM paper among those of Jumanji."""


def probe_names() -> list[tuple[str, str]]:
    """(name, one line) of every probe."""
    return list(PROBES.items())


def matches_probe(name: str) -> bool:
    """Whether ``name`` is a probe."""
    return name in PROBES


def jaxmarl_names() -> list[tuple[str, str]]:
    """(name, one line) of JaxMARL's environments that have a short name."""
    return [(name, doc) for name, (_, doc) in JAXMARL.items()]


def matches_jaxmarl(name: str) -> bool:
    """Whether ``name`` is a short name, or ``jaxmarl_`` and an id of JaxMARL's registry."""
    return name in JAXMARL or (name.startswith(PREFIX) and len(name) > len(PREFIX))


def jumanji_names() -> list[tuple[str, str]]:
    """(name, one line) of the foraging and warehouse tasks that are listed; others are generated from their names."""
    return list(JUMANJI.items())


def matches_jumanji(name: str) -> bool:
    """Whether ``name`` is that of a foraging or a warehouse task."""
    return re.fullmatch(LBF, name) is not None or re.fullmatch(RWARE, name) is not None
