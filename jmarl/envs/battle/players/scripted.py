"""Scripted players of the allies, by name: ``random``, ``nearest``, ``focus`` and ``kite``."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Int

from jmarl.config import ConfigError, suggest
from jmarl.envs.battle import tactics
from jmarl.envs.battle.players.battlefield import battlefield, view
from jmarl.envs.battle.players.moves import to_actions
from jmarl.envs.battle.tactics import Tactic
from jmarl.envs.players import RANDOM, Player, PlayerSet, random
from jmarl.types import EntityObs, Key, Spec


TACTICS: Mapping[str, Tactic] = {
    "nearest": tactics.nearest,
    "focus": tactics.focus,
    "kite": tactics.kite,
}
PLAYERS = (RANDOM, *TACTICS)
"""Names of the players."""


def make_player(name: str, spec: Spec) -> Player:
    """Build a player for an environment.

    Args:
        name: one of ``PLAYERS``.
        spec: specification of the environment. ``random`` takes any with discrete actions.

    Raises:
        ConfigError: The name is unknown, or the player cannot act in the environment.
    """
    check_player(name)
    if not spec.discrete:
        raise ConfigError(f"player={name} needs discrete actions")
    if name == RANDOM:
        return random
    field = battlefield(spec)
    if field is None:
        rule = "needs actions aimed at enemies: play a battle, without env.layout=clash"
        raise ConfigError(f"player={name} {rule}")
    tactic = TACTICS[name]

    def act(key: Key, obs: EntityObs) -> Int[Array, "B N"]:
        situation = view(field, obs)
        return to_actions(spec, field, situation, tactic(situation), obs.avail)

    return act


def check_player(name: str) -> None:
    """Raise ``ConfigError`` with the nearest name if a player is unknown."""
    if name not in PLAYERS:
        fix = suggest(name, PLAYERS, f"expected one of {', '.join(PLAYERS)}")
        raise ConfigError(f"player={name}: unknown player; {fix}")


BATTLE_PLAYERS = PlayerSet(PLAYERS, make_player)
"""Players of battles, for the registry."""
