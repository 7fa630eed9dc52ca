"""Evaluation of scripted players, with one compiled program for each environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmarl.envs import registry
from jmarl.envs.players import Player
from jmarl.system import Learner, System
from jmarl.training.evaluation import evaluate
from jmarl.types import Carry, Env, Key, Metrics, TimeStep


def player_system(players: Sequence[Player]) -> System:
    """Wrap players as a system, the parameters of which are the index of a player."""

    def act(
        player: Int[Array, ""],
        carry: Carry,
        timestep: TimeStep,
        key: Key,
        explore: Float[Array, ""],
    ) -> tuple[Int[Array, "B N"], Carry, tuple[()]]:
        return jax.lax.switch(player, players, key, timestep.obs), carry, ()

    def update(learner: Learner, rollout: Any, key: Key) -> tuple[Learner, Metrics]:
        return learner, {}

    return System(
        init=lambda key: Learner(params=jnp.int32(0)),
        carry=lambda batch: (),
        act=act,
        update=update,
        explore=lambda env_steps: jnp.ones(()),
    )


def make_players(env: Env, names: Sequence[str]) -> list[Player]:
    """Build players of an environment.

    Raises:
        ConfigError: A player is unknown or cannot act in the environment.
    """
    make = registry.players_of(env.name).make
    return [make(name, env.spec) for name in names]


def play_program(
    env: Env, names: Sequence[str], episodes: int
) -> Callable[[Int[Array, ""], Key], Metrics]:
    """Return the evaluation of a player: ``(index of its name, key) -> {name: [episodes]}``.

    Args:
        env: environment; its name in the registry determines its players.
        names: names of players.
        episodes: episodes, exactly one in each environment.

    Raises:
        ConfigError: A player is unknown or cannot act in the environment.
    """
    system = player_system(make_players(env, names))

    def play(player: Int[Array, ""], key: Key) -> Metrics:
        return evaluate(env, system, player, key, episodes, jnp.zeros(()))

    return play
