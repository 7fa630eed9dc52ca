"""Checks that parameters of one configuration fit another."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jmarl.config import ConfigError, RunConfig
from jmarl.learning.trees import leaf_shapes
from jmarl.training.build import BuiltRun
from jmarl.types import Key, Params, Spec


TEAM_SIZE_ADVICE = (
    "use an agent that reads entities, and a mixer that is a sum or reads entities "
    "(see the guide on changing the team size)"
)


def check_fit(key: str, value: Any, ours: BuiltRun, theirs: BuiltRun) -> None:
    """Check that two systems have parameters of the same shapes, from shapes only.

    Args:
        key: Configuration key to name in the error.
        value: Value of that key.
        ours: The run that receives parameters.
        theirs: The run that provides them.

    Raises:
        ConfigError: If shapes differ. The text is ``key=value: ...``, with an
            incompatible parameter, its two shapes, the cause and a fix.
    """
    our_shapes, their_shapes = (
        leaf_shapes(_transferred(run)) for run in (ours, theirs)
    )
    paths = [
        path
        for path in {**our_shapes, **their_shapes}
        if our_shapes.get(path) != their_shapes.get(path)
    ]
    if not paths:
        return
    path = paths[0]
    here = f"{our_shapes.get(path, 'missing')} for {ours.config.env['name']}"
    there = f"{their_shapes.get(path, 'missing')} for {theirs.config.env['name']}"
    more = f", and {len(paths) - 1} more differ" if len(paths) > 1 else ""
    raise ConfigError(
        f"{key}={value}: parameter {path} is {here} and {there}{more}; "
        f"{_reason(ours, theirs)}"
    )


def check_acting(key: str, value: Any, ours: BuiltRun, theirs: BuiltRun) -> None:
    """Check that the policy of one run can act with the parameters of another.

    The check is less strict than ``check_fit``. Parameters that are used only in learning,
    such as those of a mixer, may differ.

    Raises:
        ConfigError: As ``check_fit``.
    """
    params, their_params = (_transferred(run)["params"] for run in (ours, theirs))
    our_shapes, their_shapes = leaf_shapes(params), leaf_shapes(their_params)
    fitting = [
        x if shape == their_shapes.get(path) else None
        for (path, shape), x in zip(
            our_shapes.items(), jax.tree.leaves(params), strict=True
        )
    ]

    def act(params: Params, key: Key) -> Any:
        _, timestep = ours.env.reset(key, 1)
        carry = ours.system.carry(1)
        return ours.system.act(params, carry, timestep, key, jnp.zeros(()))

    available = jax.tree.unflatten(jax.tree.structure(params), fitting)
    try:
        jax.eval_shape(act, available, jax.random.key(0))
    except Exception:  # Flax raises various errors for missing parameters
        check_fit(key, value, ours, theirs)
        raise


def _transferred(run: BuiltRun) -> dict[str, Any]:
    """Return the shapes of the transferred fields, except the target network.

    The target network has the shapes of the parameters.
    """
    learner = jax.eval_shape(run.system.init, jax.random.key(0))
    return {"params": learner.params, "value_stats": learner.value_stats}


def _reason(ours: BuiltRun, theirs: BuiltRun) -> str:
    """Return the cause of a difference in shapes, and a fix."""
    our_values = _network_values(ours.config)
    their_values = _network_values(theirs.config)
    changed = [
        f"{key}={our_values.get(key)} and {their_values.get(key)}"
        for key in {**our_values, **their_values}
        if our_values.get(key) != their_values.get(key)
    ]
    if changed:
        more = ", ..." if len(changed) > 2 else ""
        return f"the networks differ ({', '.join(changed[:2])}{more}); use the same"
    names = ours.config.system_name, theirs.config.system_name
    if names[0] != names[1]:
        return f"the systems differ ({names[0]} and {names[1]}); use the same"
    if entity_widths(ours.env.spec) != entity_widths(theirs.env.spec):
        return (
            "observations or actions of a unit have other widths there, which no network "
            "bridges; use environments of the same kind"
        )
    sizes = ours.env.spec.n_agents, theirs.env.spec.n_agents
    if ours.config.system.separate_agents and sizes[0] != sizes[1]:
        return (
            f"each agent has parameters of its own, {sizes[0]} and {sizes[1]} agents; "
            "use teams of the same size, or a system whose agents share parameters"
        )
    return f"its shape depends on the size of the team; {TEAM_SIZE_ADVICE}"


def entity_widths(spec: Spec) -> tuple[int, ...]:
    """Return the sizes that every entity network depends on.

    These are the widths of own features and of each group, and the number of actions
    without a target.
    """
    group_widths = (group.width for group in spec.groups)
    return spec.own_width, *group_widths, spec.action_target.count(-1)


def _network_values(config: RunConfig) -> dict[str, Any]:
    """Return the values of ``network`` and ``system.mixer``, by key."""
    parts = {"network": config.network, "system.mixer": config.system.mixer_config}
    return {
        f"{name}.{key}": value
        for name, part in parts.items()
        if part
        for key, value in dataclasses.asdict(part).items()
    }
