"""Scripted players: policies without parameters, which read observations.

A family of environments names its players in the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmarl.config import ConfigError, suggest
from jmarl.types import EntityObs, Key, Spec


Player = Callable[[Key, EntityObs], Int[Array, "B N"]]
"""``player(key, obs) -> actions``."""
RANDOM = "random"


class PlayerSet(NamedTuple):
    """Scripted players of a family of environments."""

    names: tuple[str, ...]
    """Names of the players that are evaluated by default."""
    make: Callable[[str, Spec], Player]
    """``make(name, spec) -> player``, also for names that are not listed.

    It raises ``ConfigError`` if the player is unknown or cannot act in the environment.
    """


def random(key: Key, obs: EntityObs) -> Int[Array, "B N"]:
    """Draw uniformly from the available actions of each agent."""
    logits = jnp.where(obs.avail, 0.0, -jnp.inf)
    return jax.random.categorical(key, logits)


def make_random(name: str, spec: Spec) -> Player:
    """Build the player ``random`` for an environment with discrete actions."""
    if name != RANDOM:
        fix = suggest(name, [RANDOM], f"this environment has only {RANDOM}")
        raise ConfigError(f"player={name}: unknown player; {fix}")
    if not spec.discrete:
        raise ConfigError(f"player={name} needs discrete actions")
    return random


RANDOM_ONLY = PlayerSet((RANDOM,), make_random)
"""Players of an environment without others."""
