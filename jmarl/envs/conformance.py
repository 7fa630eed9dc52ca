"""Conformance test for environments: ``check_env(env, key)``.

It plays random available actions until every environment has ended at least one episode, and
checks the results against ``Spec``, ``TimeStep`` and ``Env`` (``jmarl/types.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.types import BY_CLASS, EntityObs, Env, Key, ObsCodec, Spec, TimeStep


class Play(NamedTuple):
    """An environment with compiled functions, and the arguments of the test."""

    env: Env
    reset: Any
    step: Any
    recode: Any
    """``recode(state)``: observations of a state, encoded and decoded; None without a codec."""
    key: Key
    batch: int


def check_env(env: Env, key: Key, batch: int = 4, steps: int | None = None) -> None:
    """Check that an environment conforms to ``jmarl.types``.

    This compiles ``reset`` and ``step`` once each.

    Args:
        env: Environment to check.
        key: Random key of the resets, steps and actions.
        batch: Number of environments B.
        steps: Number of actions. None: enough for one whole episode and a few more steps.

    Raises:
        AssertionError: If a rule is violated. The message names the field and the rule.
    """
    spec = env.spec
    _check_spec(spec)
    reset = jax.jit(env.reset, static_argnums=1)
    step = jax.jit(env.step)
    play = Play(env, reset, step, _recode_fn(spec.obs_codec), key, batch)
    state, timestep = play.reset(key, batch)
    _check_fields(timestep, spec, batch)
    _require(np.all(timestep.first), "first must be True on every row of reset")
    _check_rows(jax.device_get(timestep), spec)
    _check_state(play, state, timestep)
    again = play.reset(key, batch)
    _check_same(again, (state, timestep), "reset must depend only on its key")
    _check_codec(play, state, timestep)
    _check_episodes(
        play, state, timestep, spec.episode_limit + 4 if steps is None else steps
    )


def random_action(key: Key, timestep: TimeStep, spec: Spec) -> jax.Array:
    """Sample an action uniformly from the available ones.

    Args:
        key: Random key.
        timestep: Current time step of B environments.
        spec: Description of the environment.

    Returns:
        Integers ``[B, N]``, or vectors ``[B, N, A]`` in [-1, 1] if actions are continuous.
    """
    if spec.discrete:
        return jax.random.categorical(key, jnp.where(timestep.obs.avail, 0.0, -jnp.inf))
    return jax.random.uniform(key, timestep.obs.avail.shape, minval=-1.0, maxval=1.0)


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_spec(spec: Spec) -> None:
    hash(spec)
    _require(
        min(spec.n_agents, spec.n_actions, spec.episode_limit) >= 1,
        f"n_agents, n_actions and episode_limit must be at least 1: {spec}",
    )
    _require(
        len(spec.action_target) == spec.n_actions,
        f"action_target has length {len(spec.action_target)}, "
        f"expected n_actions={spec.n_actions}",
    )
    _require(
        all(BY_CLASS <= target < spec.n_slots for target in spec.action_target),
        f"action_target must be a slot of one observer in [0, {spec.n_slots}), -1 or BY_CLASS",
    )
    _require(
        spec.discrete or set(spec.action_target) == {-1},
        "action_target must be all -1 if actions are continuous",
    )
    table = [len(row) for row in spec.class_actions]
    _require(
        table in ([], [spec.n_actions] * spec.n_unit_classes),
        f"class_actions must have {spec.n_unit_classes} rows of {spec.n_actions} actions",
    )
    _require(
        set(spec.agent_classes) <= set(range(spec.n_unit_classes)),
        f"agent_classes must lie in [0, {spec.n_unit_classes}): {spec.agent_classes}",
    )
    names = [group.name for group in spec.groups]
    _require(len(set(names)) == len(names), f"group names must be unique: {names}")


def _expected_fields(spec: Spec, batch: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return the shape and dtype of every field of a time step."""
    n, a = (batch, spec.n_agents), spec.n_actions
    fields: dict[str, tuple[tuple[int, ...], type]] = {
        "reward": (n, np.float32),
        "terminated": ((batch,), np.bool_),
        "truncated": ((batch,), np.bool_),
        "first": ((batch,), np.bool_),
        "obs.own": ((*n, spec.own_width), np.float32),
        "obs.avail": ((*n, a), np.bool_),
        "obs.alive": (n, np.bool_),
        "obs.joined": (n, np.bool_),
        "obs.unit_class": (n, np.int32),
        "obs.state.features": ((batch, spec.global_width), np.float32),
    }
    for i, group in enumerate(spec.groups):
        state_mask = (batch, group.state_size)
        fields[f"obs.rows[{i}]"] = ((*n, group.size, group.width), np.float32)
        fields[f"obs.mask[{i}]"] = ((*n, group.size), np.bool_)
        fields[f"obs.state.rows[{i}]"] = ((*state_mask, group.state_width), np.float32)
        fields[f"obs.state.mask[{i}]"] = (state_mask, np.bool_)
    return fields


def _check_fields(timestep: TimeStep, spec: Spec, batch: int) -> None:
    leaves = {
        jax.tree_util.keystr(path).removeprefix("."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(timestep.replace(info={}))
    }
    expected = _expected_fields(spec, batch)
    extra = sorted(set(leaves) - set(expected))
    missing = sorted(set(expected) - set(leaves))
    _require(
        not extra and not missing,
        f"fields and Spec.groups disagree: extra {extra}, missing {missing}",
    )
    for name, (shape, dtype) in expected.items():
        leaf = leaves[name]
        _require(
            leaf.shape == shape,
            f"{name} has shape {leaf.shape}, expected {shape} from Spec",
        )
        _require(
            leaf.dtype == dtype,
            f"{name} has dtype {leaf.dtype}, expected {np.dtype(dtype)}",
        )
    _check_info(timestep, spec, batch)


def _check_info(timestep: TimeStep, spec: Spec, batch: int) -> None:
    missing = [name for name in spec.outcomes if name not in timestep.info]
    _require(not missing, f"info lacks the outcomes {missing}")
    for name, value in timestep.info.items():
        _require(
            value.shape[:1] == (batch,),
            f"info[{name!r}] has shape {value.shape}, expected a leading {batch}",
        )


def _check_rows(timestep: TimeStep, spec: Spec) -> None:
    """Check the rules of a single time step, given as NumPy arrays."""
    obs = timestep.obs
    for path, leaf in jax.tree_util.tree_leaves_with_path(timestep):
        if np.issubdtype(leaf.dtype, np.floating):
            name = jax.tree_util.keystr(path)
            _require(np.isfinite(leaf).all(), f"{name} is not finite")
    _require(
        (obs.avail.any(-1) | ~obs.alive).all(),
        "avail leaves an agent that is alive without any action",
    )
    _require(
        (obs.unit_class >= 0).all() and (obs.unit_class < spec.n_unit_classes).all(),
        f"unit_class must lie in [0, {spec.n_unit_classes})",
    )
    if spec.class_actions:
        able = np.asarray(spec.class_actions)[obs.unit_class]
        _require(
            (able | ~obs.avail).all(),
            "avail offers an action that class_actions denies to the unit's class",
        )
    _check_masks(obs, spec)
    _check_flags(timestep)


def _check_masks(obs: EntityObs, spec: Spec) -> None:
    for entities in (obs, obs.state):
        groups = zip(spec.groups, entities.rows, entities.mask, strict=True)
        for group, rows, mask in groups:
            _require(
                (rows[~mask] == 0).all(),
                f"rows of {group.name!r} whose mask is False must be all zero",
            )


def _check_flags(timestep: TimeStep) -> None:
    first = timestep.first
    _require(
        not (timestep.terminated & timestep.truncated).any(),
        "terminated and truncated are both True",
    )
    _require(
        not (first & timestep.last).any(),
        "terminated and truncated must be False on the first row of an episode",
    )
    _require(
        (timestep.reward[first] == 0).all(),
        "reward must be zero on the first row of an episode",
    )


def _check_present(before: EntityObs, now: TimeStep, spec: Spec) -> None:
    """Check that an absent agent, which has no action, is absent in the whole episode."""
    is_present = now.obs.avail.any(-1)
    was_present = before.avail.any(-1)
    unchanged = now.first[:, None] | (is_present == was_present)
    _require(
        (unchanged | is_present).all(),
        "avail leaves an agent without any action (dead agents need one too)",
    )
    _require(
        (unchanged | now.obs.joined).all(),
        "joined must be True for an agent that was absent at the previous step",
    )
    _require(
        not spec.fixed_team or is_present.all(),
        "no agent may be absent if Spec.fixed_team is True",
    )


def _check_state(play: Play, state: Any, timestep: TimeStep) -> None:
    """Check that ``step`` and ``refresh`` keep structure, shapes and dtypes, as scan requires."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = f"state{jax.tree_util.keystr(path)}"
        _require(
            leaf.shape[:1] == (play.batch,),
            f"{name} has shape {leaf.shape}, expected a leading {play.batch}",
        )
    action = random_action(play.key, timestep, play.env.spec)
    stepped_state, stepped = jax.eval_shape(play.step, play.key, state, action)
    _check_like(stepped_state, state, "step changes the state's")
    _check_like(stepped, timestep, "step and reset disagree in the time step's")
    refreshed = jax.eval_shape(play.env.refresh, play.key, state)
    _check_like(refreshed, state, "refresh changes the state's")


def _check_like(a: Any, b: Any, message: str) -> None:
    """Check that two trees have the same structure, shapes and dtypes."""
    same_structure = jax.tree.structure(a) == jax.tree.structure(b)
    _require(same_structure, f"{message} tree structure")
    pairs = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    for (path, x), y in pairs:
        name = jax.tree_util.keystr(path)
        _require(
            (x.shape, x.dtype) == (y.shape, y.dtype),
            f"{message} leaf {name}: "
            f"{x.dtype}{list(x.shape)} against {y.dtype}{list(y.shape)}",
        )


def _recode_fn(codec: ObsCodec | None) -> Callable[[Any], EntityObs] | None:
    if codec is None:
        return None
    return jax.jit(lambda state: codec.decode(codec.encode(state)))


def _check_codec(play: Play, state: Any, timestep: TimeStep) -> None:
    """Check that the codec reproduces the observations of a state."""
    codec = play.env.spec.obs_codec
    if codec is None:
        return
    encoded = jax.eval_shape(codec.encode, state)
    empty = jax.eval_shape(lambda: codec.empty(play.batch))
    _check_like(encoded, empty, "obs_codec.encode and obs_codec.empty disagree in the")
    decoded = play.recode(state)
    _check_same(
        decoded, timestep.obs, "obs_codec.decode must return the same observations"
    )


def _check_episodes(play: Play, state: Any, timestep: TimeStep, steps: int) -> None:
    """Play random actions, and check each time step against the previous one."""
    spec = play.env.spec
    length = np.zeros(play.batch, int)
    ended = np.zeros(play.batch, bool)
    for t in range(steps):
        act_key, step_key = jax.random.split(jax.random.fold_in(play.key, t))
        action = random_action(act_key, timestep, spec)
        before = state, timestep
        state, timestep = play.step(step_key, state, action)
        now = jax.device_get(timestep)
        last = np.asarray(before[1].last)
        _check_rows(now, spec)
        _check_present(jax.device_get(before[1].obs), now, spec)
        _require(
            (now.first == last).all(),
            "first must be True exactly on the row after the end of an episode",
        )
        if t < 2 or last.any():
            _check_step(play, step_key, before, action, (state, timestep))
        length = np.where(last, 0, length + 1)
        ended |= now.last
        _require(
            (length <= spec.episode_limit).all(),
            f"an episode of {length.max()} actions exceeds "
            f"episode_limit={spec.episode_limit}",
        )
    _require(
        ended.all() or steps <= spec.episode_limit,
        "an environment did not end any episode",
    )


def _check_step(
    play: Play,
    key: Key,
    before: tuple[Any, TimeStep],
    action: jax.Array,
    after: tuple[Any, TimeStep],
) -> None:
    """Check that a step depends only on its arguments, and each environment on its own action."""
    state, timestep = before
    _check_codec(play, *after)
    _check_same(
        play.step(key, state, action),
        after,
        "step must depend only on key, state and action",
    )
    spec = play.env.spec
    last = np.asarray(timestep.last)
    if last.any():
        opposite = (action + 1) % spec.n_actions if spec.discrete else -action
        changed = jnp.where(_expand(last, action.ndim), opposite, action)
        _check_same(
            play.step(key, state, changed),
            after,
            "the action on a row that ended an episode must be ignored",
        )
    if play.batch > 1:
        other = random_action(jax.random.fold_in(key, 1), timestep, spec)
        is_first = np.arange(play.batch) == 0
        changed = jnp.where(_expand(is_first, action.ndim), other, action)
        _check_same(
            _without_first(play.step(key, state, changed)),
            _without_first(after),
            "the action of one environment must not change another",
        )


def _check_same(a: Any, b: Any, message: str) -> None:
    """Check that two trees of the same structure have equal values, up to rounding."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    for (path, x), y in pairs:
        equal = np.allclose(_to_numpy(x), _to_numpy(y), rtol=1e-5, atol=1e-6)
        _require(equal, f"{message} ({jax.tree_util.keystr(path)})")


def _to_numpy(x: jax.Array) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def _without_first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[1:], tree)


def _expand(mask: np.ndarray, ndim: int) -> np.ndarray:
    return mask.reshape((-1,) + (1,) * (ndim - 1))
