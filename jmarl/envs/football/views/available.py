"""Available actions of the agents, for each value of ``env.mask``.

The physics ignores irrelevant actions by itself. A mask only makes learning easier.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.player_commands import OWN_ACTIONS
from jmarl.envs.football.core.world import expand
from jmarl.envs.football.views import spectra_columns as spectra
from jmarl.envs.football.views.sight import Sight, meters, present
from jmarl.envs.football.views.spectra_view import REACH as SPECTRA_REACH


Masks = dict[int, Array]
"""Mask of the agents, ``[N, *b]``, for each action that is not always available."""
REACH = 2.5 / pitch.SCALE_X
"""Distance up to which an agent may kick a free ball or slide, in units of 54.4 m."""
KICKS = (*game.PASSES, game.SHOT)
GOAL_KICK, CORNER, PENALTY = 2, 4, 6
"""Game modes in which SPECTra leaves only some actions."""


def available(sight: Sight) -> Bool[Array, "N A *b"]:
    """Return the available actions.

    An agent that was sent off can only idle, and an absent agent has no action.
    """
    alive = sight.agents(sight.view.active)
    masks = _RULES[sight.setup.config.mask](sight)
    columns = [alive] * len(game.ACTIONS)
    for action, mask in masks.items():
        columns[action] = alive & mask
    columns[game.IDLE] = _is_present(sight)
    if sight.setup.config.passes == "grf":
        return jnp.stack(columns, axis=1)
    own = [columns[action] for action in OWN_ACTIONS]
    passes = [columns[action] for action in game.PASSES]
    return jnp.concatenate(
        [jnp.stack(own, axis=1), _aimed(sight, passes)],
        axis=1,
    )


def _is_present(sight: Sight) -> Bool[Array, "N *b"]:
    view = sight.view
    there = expand(present(sight.setup), view.x)
    there = jnp.broadcast_to(there, view.x.shape)
    return sight.agents(there)


def _aimed(
    sight: Sight,
    passes: list[Array],
) -> Bool[Array, "N A *b"]:
    """Return the passes to each slot of ``allies``: to each mate long, high and short.

    An agent cannot aim at a mate that it does not see.
    """
    n = sight.setup.scenario.n_agents
    seen = sight.by_slot(sight.sees)[:, :n, None]  # [N, N, 1, *b]
    if sight.setup.config.mask == "none":
        seen = jnp.ones_like(seen)
    aimed = seen & jnp.stack(passes, axis=1)[:, None]  # [N, N, 3, *b]
    return aimed.reshape(
        n,
        n * len(passes),
        *passes[0].shape[1:],
    )


def _all(sight: Sight) -> Masks:
    return {}


def _default(sight: Sight) -> Masks:
    """Return the actions that can have an effect soon.

    The owner can kick and dribble. An agent near a free ball can request a kick, which is played
    at the next touch. An agent near an owner of the right team can slide.
    """
    near = meters(sight.ball_x, sight.ball_y) <= REACH
    owns = sight.agents(sight.owns)
    kick = owns | (near & sight.free)
    return {
        **dict.fromkeys(KICKS, kick),
        game.DRIBBLE: owns,
        game.SLIDING: near & sight.right,
        **_releases(sight),
    }


def _releases(sight: Sight) -> Masks:
    """Return the buttons that are pressed and can be released."""
    view = sight.view
    return {
        game.RELEASE_DIRECTION: sight.agents(view.direction) > 0,
        game.RELEASE_SPRINT: sight.agents(view.sprint),
        game.RELEASE_DRIBBLE: sight.agents(view.dribble),
    }


def _spectra(sight: Sight) -> Masks:
    """Return SPECTra's tactical mask: shots only in the box, where passes must be short."""
    x, y, _ = sight.view.ball
    distance = spectra.grf_length(sight.ball_x, sight.ball_y)
    near = distance <= SPECTRA_REACH
    kick = near & ~sight.right
    in_box = (x >= spectra.BOX_X) & (jnp.abs(y) <= spectra.BOX_Y)
    long = kick & ~(in_box & (x <= spectra.END_X))
    dribbles = sight.agents(sight.view.dribble)
    masks = {
        game.LONG_PASS: long,
        game.HIGH_PASS: long,
        game.SHORT_PASS: kick,
        game.SHOT: kick & in_box,
        game.DRIBBLE: kick,
        game.SLIDING: near & sight.right & ~dribbles,
        **_releases(sight),
    }
    return _in_set_pieces(sight, masks)


def _in_set_pieces(sight: Sight, masks: Masks) -> Masks:
    """Leave only passes at goal kicks and corners, and only the shot at penalties."""
    mode = sight.view.mode
    x = sight.view.ball[0]
    goal_kick = (mode == GOAL_KICK) & (x < -0.7)
    corner = (mode == CORNER) & (x > 0.9)
    penalty = (mode == PENALTY) & (x > 0.6)
    passes = goal_kick | corner
    in_play = ~(passes | penalty)
    every = jnp.ones_like(masks[game.SHOT])
    out = {}
    for action in range(len(game.ACTIONS)):
        out[action] = in_play & masks.get(action, every)
    for action in game.PASSES:
        out[action] |= passes
    out[game.SHOT] |= penalty
    return out


_RULES = {"default": _default, "spectra": _spectra, "none": _all}
