"""Names and one-line descriptions of the probes and of JaxMARL's environments, without importing JAX."""

from __future__ import annotations


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
    "mpe_reference": ("MPE_simple_reference_v3", "two agents tell each other their landmark"),
    "mpe_speaker_listener": ("MPE_simple_speaker_listener_v4", "one agent speaks, the other moves"),
}
"""Short name -> (JaxMARL's id, one line)."""

PREFIX = "jaxmarl_"


def probe_names() -> list[tuple[str, str]]:
    """(name, one line) of every probe."""
    return list(PROBES.items())


def knows_probe(name: str) -> bool:
    """Whether ``name`` is a probe."""
    return name in PROBES


def jaxmarl_names() -> list[tuple[str, str]]:
    """(name, one line) of JaxMARL's environments that have a short name."""
    return [(name, doc) for name, (_, doc) in JAXMARL.items()]


def knows_jaxmarl(name: str) -> bool:
    """Whether ``name`` is a short name, or ``jaxmarl_`` and an id of JaxMARL's registry."""
    return name in JAXMARL or (name.startswith(PREFIX) and len(name) > len(PREFIX))
