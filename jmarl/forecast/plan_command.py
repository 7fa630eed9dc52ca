"""``jmarl plan``: its arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from jmarl.config import ConfigError, split_argument
from jmarl.config.choices import check_system
from jmarl.runs.exit_codes import ExitCode, ResourceError


CHOICES = {"plan": ("one", "sweep"), "json": ("false", "true")}
OWN = ("target", *CHOICES)
SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Numbers of environments of ``plan=sweep``."""


def plan(arguments: Sequence[str]) -> int:
    """Print what a run needs on a target; exit code 3 if it does not fit.

    Raises:
        ConfigError: If an argument is invalid, or the compiler of the target is not installed.
        ResourceError: If XLA does not compile the run because it would not fit.
    """
    if not arguments or "=" in arguments[0]:
        raise ConfigError("plan: names no system (jmarl systems lists them)")
    system, *words = arguments
    check_system(system, system)
    pairs = [split_argument(word) for word in words]
    own = {key: text for key, text in pairs if key in OWN}
    overrides = [f"{key}={text}" for key, text in pairs if key not in own]
    if "target" not in own:
        raise ConfigError("plan: names no target, such as target=h100")
    for key, values in CHOICES.items():
        if own.get(key, values[0]) not in values:
            raise ConfigError(f"{key}={own[key]}: must be {' or '.join(values)}")
    os.environ["JAX_PLATFORMS"] = "cpu"  # the target is described, not used
    # no warnings about missing drivers
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if own.get("plan") == "sweep":
        return _sweep(system, overrides, own["target"])
    return _one(system, overrides, own["target"], own.get("json") == "true")


def _one(system: str, overrides: Sequence[str], name: str, as_json: bool) -> int:
    from jmarl.forecast.compile_plan import plan_run
    from jmarl.forecast.largest_batch import largest_num_envs
    from jmarl.forecast.plan_text import plan_record, plan_text
    from jmarl.forecast.targets import find_target

    target = find_target(name)
    found = plan_run(system, overrides, target)
    print(json.dumps(plan_record(found)) if as_json else plan_text(found), flush=True)
    if found.fits:
        return ExitCode.FINISHED
    if as_json:
        return ExitCode.RESOURCE
    most = largest_num_envs(system, overrides, found)
    advice = f"num_envs={most} should fit" if most else "no number of environments fits"
    print(f"{advice}, by the memory of two sizes")
    return ExitCode.RESOURCE


def _sweep(system: str, overrides: Sequence[str], name: str) -> int:
    """Print the table up to the first size that XLA does not compile for lack of memory."""
    from jmarl.forecast.compile_plan import plan_run
    from jmarl.forecast.plan_text import sweep_text
    from jmarl.forecast.targets import find_target

    target = find_target(name)
    plans, reason = [], ""
    try:
        for size in SIZES:
            plans.append(plan_run(system, [*overrides, f"num_envs={size}"], target))
    except ResourceError as error:
        reason = str(error)
    print(sweep_text(plans))
    if reason:
        print(reason)
    return ExitCode.FINISHED
