"""Play SMAClite with random available actions; print steps and CPU seconds as JSON.

    python smaclite_driver.py <checkout> names
    python smaclite_driver.py <checkout> play <map> <limit> <seconds> <episodes>

It runs with SMAClite's Python, so it imports nothing of jmarl. Episodes are played until they have
taken ``seconds`` of CPU time, and at least ``episodes`` of them. SMAClite has no time limit: an
episode that reaches ``limit`` steps is reset. Seeds are fixed, so two runs with as many episodes
take the same steps. The environment is built without Gymnasium's wrappers, which only cost time.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np


SEED = 0
WARM_UP = 5
"""Steps before the clock starts."""


def main(argv: list[str]) -> dict[str, Any]:
    """Return the names of the maps, or the counts and the CPU time of some episodes."""
    checkout, command, *rest = argv
    sys.path.insert(0, checkout)
    maps = import_module("smaclite.env.maps.map").MapPreset
    presets = {preset.value.name: preset.value for preset in maps}
    if command == "names":
        return {"names": list(presets)}
    name, limit, seconds, episodes = rest
    make = import_module("smaclite.env").SMACliteEnv
    env = make(map_info=presets[name], seed=SEED)
    play(env, WARM_UP, 0.0, 1)
    return play(env, int(limit), float(seconds), int(episodes))


def play(env: Any, limit: int, seconds: float, episodes: int) -> dict[str, Any]:
    """Play whole episodes, and count them, their steps and their CPU seconds."""
    rng = np.random.default_rng(SEED)
    env.seed(SEED)
    steps = played = 0
    elapsed = 0.0
    started = time.process_time()
    while played < episodes or elapsed < seconds:
        steps += play_episode(env, rng, limit)
        played += 1
        elapsed = time.process_time() - started
    return {"steps": steps, "episodes": played, "cpu_s": elapsed}


def play_episode(env: Any, rng: np.random.Generator, limit: int) -> int:
    """Play one episode; return its number of steps."""
    env.reset()
    steps, done = 0, False
    while not done and steps < limit:
        available = env.get_avail_actions()
        actions = [int(rng.choice(np.flatnonzero(row))) for row in available]
        done = env.step(actions)[2]
        steps += 1
    return steps


if __name__ == "__main__":
    # SMAClite prints lines of its own.
    with contextlib.redirect_stdout(sys.stderr):
        result = main(sys.argv[1:])
    print(json.dumps(result))
