"""The test that every environment passes: ``check_env(env, key)``.

It plays random available actions until every world has ended at least one episode, and holds
what came out against ``Spec``, ``TimeStep`` and ``Env`` (``jmarl/types.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.types import EntityObs, Env, Key, Spec, TimeStep


class Play(NamedTuple):
    """An environment with its two functions compiled, and what they were called with."""

    env: Env
    reset: Any
    step: Any
    obs_codec: Any
    """From a state to the observations made again from its encoded_obs."""
    key: Key
    batch: int


def check_env(env: Env, key: Key, batch: int = 4, steps: int | None = None) -> None:
    """Hold an environment against the vocabulary; returns nothing.

    ``steps`` actions are taken, by default enough for an episode of ``episode_limit``, its
    reset and a few more. Raises ``AssertionError`` with one sentence that names the field and
    the law. Costs one compilation of ``reset`` and one of ``step``.
    """
    _check_spec(env.spec)
    play = Play(
        env,
        jax.jit(env.reset, static_argnums=1),
        jax.jit(env.step),
        _recalling(env.spec),
        key,
        batch,
    )
    state, timestep = play.reset(key, batch)
    _check_fields(timestep, env.spec, batch)
    _require(np.all(timestep.first), "first must be True on every row of reset")
    _check_rows(jax.device_get(timestep), env.spec)
    _check_state(play, state, timestep)
    _check_same(
        play.reset(key, batch), (state, timestep), "reset is not determined by its key"
    )
    _check_recall(play, state, timestep)
    _check_episodes(
        play, state, timestep, env.spec.episode_limit + 4 if steps is None else steps
    )


def random_action(key: Key, timestep: TimeStep, spec: Spec) -> jax.Array:
    """A uniform action among the available ones, ``[B, N]``, or a vector in [-1, 1], ``[B, N, A]``."""
    if spec.discrete:
        return jax.random.categorical(key, jnp.where(timestep.obs.avail, 0.0, -jnp.inf))
    return jax.random.uniform(key, timestep.obs.avail.shape, minval=-1.0, maxval=1.0)


def _require(law: Any, text: str) -> None:
    if not law:
        raise AssertionError(text)


def _check_spec(spec: Spec) -> None:
    hash(spec)
    _require(
        min(spec.n_agents, spec.n_actions, spec.episode_limit) >= 1,
        f"a count is below 1 in {spec}",
    )
    _require(
        len(spec.action_target) == spec.n_actions,
        f"action_target has length {len(spec.action_target)}, n_actions is {spec.n_actions}",
    )
    _require(
        all(-1 <= target < spec.n_slots for target in spec.action_target),
        f"action_target must lie in [-1, {spec.n_slots}), the slots of one observer",
    )
    _require(
        spec.discrete or set(spec.action_target) == {-1},
        "a continuous action aims at nothing: all -1",
    )
    names = [group.name for group in spec.groups]
    _require(len(set(names)) == len(names), f"two groups share a name: {names}")


def _expected(spec: Spec, batch: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and dtype of every field of a time step."""
    n, a = (batch, spec.n_agents), spec.n_actions
    fields = {
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
        fields[f"obs.rows[{i}]"] = ((*n, group.size, group.width), np.float32)
        fields[f"obs.mask[{i}]"] = ((*n, group.size), np.bool_)
        fields[f"obs.state.rows[{i}]"] = (
            (batch, group.state_size, group.state_width),
            np.float32,
        )
        fields[f"obs.state.mask[{i}]"] = ((batch, group.state_size), np.bool_)
    return fields


def _check_fields(timestep: TimeStep, spec: Spec, batch: int) -> None:
    named = {
        jax.tree_util.keystr(path).removeprefix("."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(timestep.replace(info={}))
    }
    expected = _expected(spec, batch)
    _require(
        set(named) == set(expected),
        f"fields and Spec.groups disagree: extra {sorted(set(named) - set(expected))}, "
        f"missing {sorted(set(expected) - set(named))}",
    )
    for name, (shape, dtype) in expected.items():
        leaf = named[name]
        _require(
            leaf.shape == shape, f"{name} has shape {leaf.shape}, Spec says {shape}"
        )
        _require(
            leaf.dtype == dtype,
            f"{name} has dtype {leaf.dtype}, expected {np.dtype(dtype)}",
        )
    absent = [name for name in spec.outcomes if name not in timestep.info]
    _require(not absent, f"info lacks the outcomes {absent}")
    for name, value in timestep.info.items():
        _require(
            value.shape[:1] == (batch,),
            f"info[{name!r}] has shape {value.shape}, not a leading {batch}",
        )


def _check_rows(timestep: TimeStep, spec: Spec) -> None:
    """Laws of a single time step; arrays are NumPy's."""
    obs = timestep.obs
    for path, leaf in jax.tree_util.tree_leaves_with_path(timestep):
        if np.issubdtype(leaf.dtype, np.floating):
            _require(
                np.isfinite(leaf).all(), f"{jax.tree_util.keystr(path)} is not finite"
            )
    _require(
        (obs.avail.any(-1) | ~obs.alive).all(),
        "avail leaves some agent that is alive without any action",
    )
    _require(
        (obs.unit_class >= 0).all() and (obs.unit_class < spec.n_unit_classes).all(),
        "unit_class out of range",
    )
    groups = [
        *zip(obs.rows, obs.mask, strict=True),
        *zip(obs.state.rows, obs.state.mask, strict=True),
    ]
    for i, (rows, mask) in enumerate(groups):
        name = spec.groups[i % len(spec.groups)].name
        _require(
            (rows[~mask] == 0).all(),
            f"rows of {name!r} whose mask is False must be all zero",
        )
    _require(
        not (timestep.terminated & timestep.truncated).any(),
        "terminated and truncated are both True",
    )
    new = timestep.first
    _require(
        not (new & timestep.last).any(),
        "a row that begins an episode carries an end flag",
    )
    _require(
        (timestep.reward[new] == 0).all(),
        "reward must be zero on a row that begins an episode",
    )


def _check_present(before: EntityObs, now: TimeStep, spec: Spec) -> None:
    """An agent that an episode does not have, neither alive nor with any action, is absent in all of its rows."""
    has, had = now.obs.avail.any(-1), before.avail.any(-1)
    stays = now.first[:, None] | (has == had)
    _require(
        (stays | has).all(),
        "avail leaves some agent without any action (the dead need one too)",
    )
    _require(
        (stays | now.obs.joined).all(),
        "an agent that was absent is there, without joined",
    )
    _require(
        not spec.fixed_team or has.all(),
        "an agent is absent, and Spec.fixed_team is True",
    )


def _check_state(play: Play, state: Any, timestep: TimeStep) -> None:
    """Structure, dtypes and the leading B survive ``step`` and ``refresh``, so that ``scan`` works."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        _require(
            leaf.shape[:1] == (play.batch,),
            f"state{jax.tree_util.keystr(path)} has shape {leaf.shape}, no leading B",
        )
    action = random_action(play.key, timestep, play.env.spec)
    after = jax.eval_shape(play.step, play.key, state, action)
    _check_like(after[0], state, "step changes the state's")
    _check_like(after[1], timestep, "step and reset disagree in the time step's")
    _check_like(
        jax.eval_shape(play.env.refresh, play.key, state),
        state,
        "refresh changes the state's",
    )


def _check_like(a: Any, b: Any, text: str) -> None:
    _require(jax.tree.structure(a) == jax.tree.structure(b), f"{text} tree structure")
    pairs = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    for (path, x), y in pairs:
        same = (x.shape, x.dtype) == (y.shape, y.dtype)
        where = jax.tree_util.keystr(path)
        _require(
            same,
            f"{text} leaf {where}: {x.dtype}{list(x.shape)} against {y.dtype}{list(y.shape)}",
        )


def _recalling(spec: Spec) -> Any:
    obs_codec = spec.obs_codec
    return (
        jax.jit(lambda state: obs_codec.decode(obs_codec.encode(state)))
        if obs_codec
        else None
    )


def _check_recall(play: Play, state: Any, timestep: TimeStep) -> None:
    """The observations made again are those that were seen."""
    if obs_codec := play.env.spec.obs_codec:
        encoded_obs, empty = jax.eval_shape(
            lambda state: (obs_codec.encode(state), obs_codec.empty(play.batch)), state
        )
        _check_like(
            encoded_obs, empty, "obs_codec.encode and obs_codec.empty disagree in the"
        )
        _check_same(
            play.obs_codec(state),
            timestep.obs,
            "obs_codec.decode gives other observations",
        )


def _check_episodes(play: Play, state: Any, timestep: TimeStep, steps: int) -> None:
    """Play, and hold every step against the one before."""
    length = np.zeros(play.batch, int)
    ended = np.zeros(play.batch, bool)
    for t in range(steps):
        act_key, step_key = jax.random.split(jax.random.fold_in(play.key, t))
        action = random_action(act_key, timestep, play.env.spec)
        before, (state, timestep) = (
            (state, timestep),
            play.step(step_key, state, action),
        )
        now, last = jax.device_get(timestep), np.asarray(before[1].last)
        _check_rows(now, play.env.spec)
        _check_present(jax.device_get(before[1].obs), now, play.env.spec)
        _require(
            (now.first == last).all(),
            "first must be True exactly on the row after one that ended",
        )
        if t < 2 or last.any():
            _check_steps(play, step_key, before, action, (state, timestep), last)
        length = np.where(last, 0, length + 1)
        ended |= now.last
        limit = play.env.spec.episode_limit
        _require(
            (length <= limit).all(),
            f"an episode of {length.max()} actions exceeds episode_limit {limit}",
        )
    _require(
        ended.all() or steps <= play.env.spec.episode_limit,
        "some world never ended an episode",
    )


def _check_steps(
    play: Play,
    key: Key,
    before: tuple[Any, TimeStep],
    action: jax.Array,
    after: tuple[Any, TimeStep],
    last: np.ndarray,
) -> None:
    """The same key gives the same step; ended worlds ignore the action; worlds do not meet."""
    state = before[0]
    _check_recall(play, *after)
    _check_same(
        play.step(key, state, action),
        after,
        "step is not determined by key, state and action",
    )
    other = random_action(jax.random.fold_in(key, 1), before[1], play.env.spec)
    if last.any():
        opposite = (
            (action + 1) % play.env.spec.n_actions
            if play.env.spec.discrete
            else -action
        )
        changed = jnp.where(_wide(last, action.ndim), opposite, action)
        _check_same(
            play.step(key, state, changed),
            after,
            "the action on a row that ended must be ignored",
        )
    if play.batch > 1:
        alone = np.arange(play.batch) == 0
        changed = jnp.where(_wide(alone, action.ndim), other, action)
        rest = jax.tree.map(lambda x: x[1:], play.step(key, state, changed))
        _check_same(
            rest,
            jax.tree.map(lambda x: x[1:], after),
            "the action of one world changes another",
        )


def _check_same(a: Any, b: Any, text: str) -> None:
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        x, y = (
            np.asarray(
                jax.random.key_data(v)
                if jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
                else v
            )
            for v in (x, y)
        )
        _require(
            np.allclose(x, y, rtol=1e-5, atol=1e-6),
            f"{text} ({jax.tree_util.keystr(path)})",
        )


def _wide(mask: np.ndarray, ndim: int) -> np.ndarray:
    return mask.reshape((-1,) + (1,) * (ndim - 1))
