"""Physics of one environment step of SMAX: the ticks, and the reloading of weapons.

All arrays are batch-last (``state.Bodies``). The random draws reproduce those of SMAX from one key
per environment, restricted to the draws in use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt32

from jmarl.envs.battle.fused import fused, is_fused
from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.smax.smax_ticks import Orders, Shots, Traits, run_ticks
from jmarl.envs.battle.state import Bodies, trait
from jmarl.envs.keys import (
    Words,
    bits_to_uniform,
    child_words,
    draw,
    fold_in,
    random_bits,
    split_words,
)
from jmarl.platforms import platform, short_loop


def simulate(
    rules: Rules,
    keys: Key[Array, "B"],
    bodies: Bodies,
    kind: Int[Array, "U B"],
    orders: Orders,
) -> Bodies:
    """Advance every environment by one environment step."""
    units = Traits(*(trait(rules, name, kind) for name in Traits._fields))
    unroll = short_loop() and not is_fused(len(kind))  # a kernel can have a loop
    ticks = partial(run_ticks, rules, unroll=unroll)
    after, shots = fused(ticks, bodies, units, orders)
    words = _random_words(rules, keys, shots)
    return after._replace(
        cooldown=_reload(rules, words, after.cooldown, units.cooldown, shots)
    )


def _random_words(
    rules: Rules, keys: Key[Array, "B"], shots: Shots
) -> UInt32[Array, "U B"]:
    """Return the random word of each unit for the tick of its shot, if it has fired."""
    units = jnp.arange(len(shots.fired), dtype=jnp.uint32)
    if platform() == "cpu":
        keys = _of_shots(rules, keys, shots, jax.vmap(jax.random.split, out_axes=1))
        return random_bits(fold_in(keys, units), 1)[..., 0]
    words = _of_shots(rules, split_words(keys), shots, _both_children)
    return draw(child_words(words, units[:, None]), 0)


def _both_children(parents: Words) -> tuple[Words, Words]:
    return child_words(parents, 0), child_words(parents, 1)


def _of_shots(
    rules: Rules, keys: Any, shots: Shots, split: Callable[[Any], Any]
) -> Any:
    """Return the key of the tick of each unit's shot, or its words, as ``keys`` are given."""

    def descend(carry: tuple[Any, Any], after: Array) -> tuple[Any, None]:
        parents, chosen = carry
        below = split(parents)
        select = partial(jnp.where, shots.remaining == after)
        chosen = jax.tree.map(select, below[1], chosen)
        return (below[0], chosen), None

    spread = partial(jnp.broadcast_to, shape=shots.fired.shape)
    start = keys, jax.tree.map(spread, keys)
    ticks_after = np.arange(rules.ticks - 1, -1, -1, dtype=np.float32)
    (_, chosen), _ = lax.scan(
        descend, start, jnp.asarray(ticks_after), unroll=short_loop()
    )
    return chosen


def _reload(
    rules: Rules,
    words: UInt32[Array, "U B"],
    waited: Float[Array, "U B"],
    cooldown: Float[Array, "U B"],
    shots: Shots,
) -> Float[Array, "U B"]:
    """Return the cooldowns at the end of the step.

    A weapon fires at most once in an environment step, because every cooldown is longer than the
    step. Thus one draw per unit replaces SMAX's draw per unit and tick.
    """
    deviation = bits_to_uniform(words) * (3 * rules.tick) - rules.tick
    # The order of the additions is SMAX's, so that the results have the same bits.
    loaded = waited + ((cooldown + deviation) - waited)
    return jnp.where(shots.fired, loaded - shots.remaining * rules.tick, waited)
