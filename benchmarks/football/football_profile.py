"""Share of each part in the time of a step of football, by leaving one part out.

A trajectory of random available actions is recorded first. Then rollouts with these actions and
keys are compiled and timed, interleaved: the whole step, and steps in which the functions of one
part return their input, or zeros. The time of the part is the difference. A step does the same
work in every state. XLA fuses operations across parts, so the shares are not exact, and they are
as noisy as the times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.support.common import time_each
from benchmarks.support.step_profile import compile_steps, record, zeros_of
from jmarl.envs import make
from jmarl.envs.football import football_env
from jmarl.envs.football.core import ball, keeper, motion
from jmarl.envs.football.core.contact import dribble, touch
from jmarl.envs.football.core.scripted import race, scripted_team


class Change(NamedTuple):
    """Replacement of a function for a variant."""

    module: ModuleType
    function: str
    replace: Callable[[Callable], Callable]


def keeping(*positions: int) -> Callable[[Callable], Callable]:
    """Return what replaces a function by one that returns some of its arguments."""

    def replace(function: Callable) -> Callable:
        def kept(*args: Any) -> Any:
            values = [args[i] for i in positions]
            return tuple(values) if len(values) > 1 else values[0]

        return kept

    return replace


PARTS = {
    "observations": (Change(football_env, "observe", zeros_of),),
    "scripted play": (
        Change(race, "race", zeros_of),
        Change(scripted_team, "plan", zeros_of),
    ),
    "motion": (
        Change(motion, "accelerate", keeping(1)),
        Change(motion, "separate", keeping(0)),
    ),
    "ball": (
        Change(ball, "fly", keeping(0, 1)),
        Change(ball, "bounce_off_posts", keeping(1, 2)),
    ),
    "touches and saves": (
        Change(dribble, "carrier_wish", zeros_of),
        Change(touch, "contact", zeros_of),
        Change(touch, "stop_ball", keeping(0)),
        Change(touch, "play", keeping(0)),
        Change(keeper, "saves", zeros_of),
    ),
}
"""Functions of each part."""


def measure_parts(name: str, batch: int, length: int, repeats: int) -> dict[str, float]:
    """Return the microseconds of an environment step, and the share of each part.

    Args:
        name: Environment.
        batch: Number of environments.
        length: Steps per compiled call.
        repeats: Samples per time.
    """
    path = record(make(name), batch, length)
    calls = {"whole": compile_steps(make(name), path)}
    for part in PARTS:
        with left_out(part):
            calls[part] = compile_steps(make(name), path)
    timings = time_each(calls, repeats)
    us = {side: 1e6 * timing.best / path.steps for side, timing in timings.items()}
    shares = {part: 1 - us[part] / us["whole"] for part in PARTS}
    noise = max(timing.noise for timing in timings.values())
    rest = 1 - sum(shares.values())
    return {"us": us["whole"], **shares, "rest": rest, "noise": noise}


@contextlib.contextmanager
def left_out(part: str) -> Iterator[None]:
    """Build and trace environments without a part within this context."""
    with contextlib.ExitStack() as stack:
        for change in PARTS[part]:
            function = getattr(change.module, change.function)
            patch = mock.patch.object(
                change.module, change.function, change.replace(function)
            )
            stack.enter_context(patch)
        yield
