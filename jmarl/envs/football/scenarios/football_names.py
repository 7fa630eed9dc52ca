"""Names of football environments, ``football_<scenario>``. This module does not import JAX."""

from __future__ import annotations

import re

from jmarl.config.errors import ConfigError, check, suggest
from jmarl.envs.football.scenarios import academy
from jmarl.envs.football.scenarios.academy import SCENARIOS
from jmarl.envs.football.scenarios.football_scenario import Scenario


PREFIX = "football_"
_EXAMPLES = ("2_vs_1_with_keeper", "5_vs_5_with_keeper", "10_vs_10_with_keeper")
"""Listed names of the family ``N_vs_M_with_keeper``."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


def names() -> list[tuple[str, str]]:
    """Return the names and one-line descriptions of the listed environments.

    Other sizes of ``football_N_vs_M_with_keeper`` can be built without being listed.
    """
    listed = (*SCENARIOS.values(), *map(academy.sized, _EXAMPLES))
    return [(PREFIX + scenario.name, scenario.description) for scenario in listed]


def matches(name: str) -> bool:
    """Return whether a name is that of a football environment.

    The numbers in ``football_N_vs_M_with_keeper`` are checked later, by ``get_scenario``.
    """
    short = name.removeprefix(PREFIX)
    return name.startswith(PREFIX) and (short in SCENARIOS or academy.is_sized(short))


def get_scenario(name: str) -> Scenario:
    """Return the scenario with a given name.

    Args:
        name: A key of ``SCENARIOS``, or ``N_vs_M_with_keeper``. The prefix ``football_`` is
            optional.

    Raises:
        ConfigError: If the name is unknown, or N or M is out of its range. The message names the
            nearest scenario.
    """
    short = name.removeprefix(PREFIX)
    if short in SCENARIOS:
        return SCENARIOS[short]
    if academy.is_sized(short):
        return academy.sized(short)
    known = [*SCENARIOS, *_EXAMPLES]
    fix = suggest(short, known, f"expected one of {', '.join(known)}")
    raise ConfigError(f"scenario={name}: unknown scenario; {fix}")


def register(scenario: Scenario) -> None:
    """Add a scenario, which becomes the environment ``football_<name>`` of this process.

    Args:
        scenario: A scenario with a new name of lower-case letters, digits and underscores.

    Raises:
        ConfigError: If the name is taken or has other characters.
    """
    name = scenario.name
    is_valid = _NAME.fullmatch(name) is not None and not name.startswith(PREFIX)
    rule = f"must have lower-case letters, digits and _, and not start with {PREFIX}"
    check(is_valid, "scenario", name, rule)
    is_taken = SCENARIOS.get(name, scenario) != scenario or academy.is_sized(name)
    check(not is_taken, "scenario", name, "the name is taken; choose another one")
    SCENARIOS[name] = scenario
