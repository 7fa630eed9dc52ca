"""Whether parameters of one configuration fit another, and in one line why they do not."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmarl.config import ConfigError, RunConfig
from jmarl.runs.checkpoint import leaf_shapes
from jmarl.system import TRANSFERABLE_FIELDS, System
from jmarl.types import Env, Key, Params, Spec


ADVICE = "systems that read entities, and mix by a sum or by attention, have none that does: spectra_qmix_plus, hpn_vdn"


class Side(NamedTuple):
    """A configuration, and what it was made into."""

    config: RunConfig
    env: Env
    system: System


def check_fit(key: str, value: Any, ours: Side, others: Side) -> None:
    """Raise ``ConfigError`` with the text ``key=value: ...`` unless both systems have parameters of the same shapes.

    Nothing is computed. The text names a parameter, its two shapes, what they depend on and what to choose instead.
    """
    here, there = (leaf_shapes(_handed_over(side)) for side in (ours, others))
    paths = [path for path in {**here, **there} if here.get(path) != there.get(path)]
    if not paths:
        return
    worlds = [side.config.env["name"] for side in (ours, others)]
    shapes = [leaves.get(paths[0], "missing") for leaves in (here, there)]
    more = f", and {len(paths) - 1} more differ" if len(paths) > 1 else ""
    first = f"parameter {paths[0]} is {shapes[0]} for {worlds[0]} and {shapes[1]} for {worlds[1]}{more}"
    raise ConfigError(f"{key}={value}: {first}; {_reason(ours, others)}")


def _handed_over(side: Side) -> dict[str, Any]:
    """Shapes of what a learner gives to another one; a target network has those of the parameters."""
    learner = jax.eval_shape(side.system.init, jax.random.key(0))
    return {
        name: getattr(learner, name)
        for name in TRANSFERABLE_FIELDS
        if name != "target" and hasattr(learner, name)
    }


def check_acting(key: str, value: Any, ours: Side, others: Side) -> None:
    """As ``check_fit``, but of those parameters alone that acting reads: a mixer, say, is for learning."""
    params, theirs = (_handed_over(side)["params"] for side in (ours, others))
    here, there = leaf_shapes(params), leaf_shapes(theirs)
    fitting = [
        x if here[path] == there.get(path) else None
        for path, x in zip(here, jax.tree.leaves(params), strict=True)
    ]

    def act(params: Params, key: Key) -> Any:
        _, timestep = ours.env.reset(key, 1)
        return ours.system.act(
            params, ours.system.carry(1), timestep, key, jnp.zeros(())
        )

    try:
        jax.eval_shape(
            act,
            jax.tree.unflatten(jax.tree.structure(params), fitting),
            jax.random.key(0),
        )
    except Exception:  # whatever a network raises that misses a parameter
        check_fit(key, value, ours, others)
        raise


def _reason(ours: Side, others: Side) -> str:
    here, there = _choices(ours.config), _choices(others.config)
    changed = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if changed:
        pairs = [f"{key}={here.get(key)} and {there.get(key)}" for key in changed]
        return f"the networks differ ({', '.join(pairs[:2])}{', ...' if len(pairs) > 2 else ''}); choose the same"
    names = ours.config.system_name, others.config.system_name
    if names[0] != names[1]:
        return f"the systems differ ({names[0]} and {names[1]}); choose the same"
    if _widths(ours.env.spec) != _widths(others.env.spec):
        return "what a unit observes or does has other widths there, which no network bridges; choose worlds of one kind"
    return f"it depends on the size of the team; {ADVICE}"


def _widths(spec: Spec) -> tuple[int, ...]:
    """What any network of entities depends on: features of a unit and of those it sees, and actions with no target."""
    return (
        spec.own_width,
        *(group.width for group in spec.groups),
        spec.action_target.count(-1),
    )


def _choices(config: RunConfig) -> dict[str, Any]:
    """The values of ``network`` and ``system.mixer`` by key, which decide the networks of a world."""
    parts: dict[str, Any] = {
        "network": config.network,
        "system.mixer": getattr(config.system, "mixer", None),
    }
    values = {
        name: dataclasses.asdict(part) if part else {} for name, part in parts.items()
    }
    return {
        f"{name}.{key}": value
        for name, by_key in values.items()
        for key, value in by_key.items()
    }
