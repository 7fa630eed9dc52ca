"""Football after Google Research Football: ``football_*``.

``core`` contains the physics, the scripted play and the rules, ``scenarios`` the starts and names,
and ``views`` the observations. Nothing here may import learning code. Only ``jaxmarl`` may import
JaxMARL. The package ``scenarios`` and the module ``football_options`` may not import JAX. Public
names that need JAX are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jmarl.envs.football.scenarios.academy import SCENARIOS
from jmarl.envs.football.scenarios.football_names import register
from jmarl.envs.football.scenarios.football_scenario import Player, Scenario


if TYPE_CHECKING:
    from jmarl.envs.football.football_play import play
    from jmarl.envs.football.football_replay import replay
    from jmarl.envs.football.football_scripts import SCRIPTS

__all__ = ["SCENARIOS", "SCRIPTS", "Player", "Scenario", "play", "register", "replay"]
_MODULES = {
    "SCRIPTS": "football_scripts",
    "play": "football_play",
    "replay": "football_replay",
}
"""Modules of the names that are imported on first use."""


def __getattr__(name: str) -> Any:
    """Import ``SCRIPTS``, ``play`` or ``replay``."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
