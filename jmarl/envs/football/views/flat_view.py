"""Observations as one flat vector for each agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.views.sight import Sight


class FlatView(NamedTuple):
    """Functions of a value of ``env.obs`` that has no entities."""

    width: Callable[[Setup], int]
    """Number of features of an agent's vector."""
    global_width: Callable[[Setup], int]
    """Number of features of the central state."""
    own: Callable[[Sight], Float[Array, "*b N F"]]
    """Return the vectors of the agents."""
    central: Callable[[Sight], Float[Array, "*b F"]]
    """Return the central state."""
