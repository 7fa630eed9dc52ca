"""Adapter of cooperative JaxMARL environments.

JaxMARL's own ``step`` replaces the last observation of an episode by the first observation of
the next one, and reports a time limit as termination. The adapter calls ``step_env`` instead, and
``batched`` ends the episodes. To separate a terminal state from the time limit, the adapter
repeats each transition with the step counter at zero. The compiler merges the common parts of
the two transitions.

Observations of unequal width are padded with zeros, and unequal action counts are masked. Every
agent of the environment is a learner, so competitive environments are not supported.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config import ConfigError
from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.catalog import JAXMARL, JAXMARL_PREFIX
from jmarl.envs.options import parse_count, parse_flag
from jmarl.types import CentralState, EntityObs, Env, Group, Key, Spec


Observe = Callable[[dict[str, jax.Array], Any], EntityObs]
"""``observe(obs, state)``: JaxMARL's observations and state of one environment as ``EntityObs``."""


def make(
    name: str,
    *,
    continuous: bool | None = None,
    episode_limit: int | None = None,
    **options: Any,
) -> Env:
    """Build a JaxMARL environment.

    Args:
        name: A short name of the catalog, for example ``mpe_spread``, or ``jaxmarl_<ID>``.
        continuous: Use the continuous actions of a particle environment. Their components in
            [0, 1] are mapped from [-1, 1]. A name that ends in ``_continuous`` implies True.
        episode_limit: Largest number of actions in an episode. Required if the environment has
            no ``max_steps``.
        **options: Options of JaxMARL's constructor, for example ``num_agents``.

    Returns:
        A batch of environments as pure functions.

    Raises:
        ConfigError: If an option is unknown or has a wrong value.
        ValueError: If the id is unknown, the action spaces are mixed, or the state has no step
            counter.
    """
    if episode_limit is not None:
        episode_limit = parse_count("episode_limit", episode_limit)
    if continuous is None:
        continuous = name.endswith("_continuous")
    if parse_flag("continuous", continuous):
        options["action_type"] = "Continuous"
    env_id = JAXMARL[name][0] if name in JAXMARL else name.removeprefix(JAXMARL_PREFIX)
    source = _import_jaxmarl().make(env_id, **options)
    _check_options(type(source), options)
    _check_step_counter(source)
    if episode_limit is None:
        episode_limit = _episode_limit(source)
    entities = env_id == "MPE_simple_spread_v3"
    adapt = _adapt_spread if entities else _adapt_flat
    spec, observe = adapt(source, episode_limit)
    return batched(_single_env(name, source, spec, observe))


def _import_jaxmarl() -> Any:
    """Import JaxMARL on first use, because it initializes the JAX backend and prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("jaxmarl")


def _single_env(name: str, source: Any, spec: Spec, observe: Observe) -> SingleEnv:
    spaces = [source.action_space(agent) for agent in source.agents]

    def reset(key: Key) -> tuple[Any, EntityObs]:
        obs, state = source.reset(key)
        return _to_arrays(state), observe(obs, state)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        rows = zip(source.agents, spaces, action, strict=True)
        actions = {agent: _to_space(space, row) for agent, space, row in rows}
        obs, after, reward, done, _ = source.step_env(key, state, actions)
        # With the step counter at zero, only a terminal state ends the episode.
        early_state = state.replace(step=jnp.zeros_like(state.step))
        _, _, _, early_done, _ = source.step_env(key, early_state, actions)
        rewards = jnp.stack(
            [jnp.asarray(reward[agent], jnp.float32) for agent in source.agents]
        )
        result = Step(
            observe(obs, after),
            rewards,
            terminated=early_done["__all__"],
            truncated=done["__all__"],
        )
        return _to_arrays(after), result

    return SingleEnv(name, spec, reset, step)


def _adapt_flat(source: Any, episode_limit: int) -> tuple[Spec, Observe]:
    """Use flat observations of equal width, and JaxMARL's world state if there is one."""
    obs, state = jax.eval_shape(source.reset, jax.random.key(0))
    own_width = max(obs[agent].size for agent in source.agents)
    central = _central_state_fn(source, state)
    global_width = None if central is None else jax.eval_shape(central, state).size
    counts, discrete = _action_widths(source)
    spec = flat_spec(
        source.num_agents,
        own_width,
        max(counts),
        episode_limit,
        global_width=global_width,
        discrete=discrete,
    )
    exists = jnp.arange(spec.n_actions) < jnp.asarray(counts)[:, None]

    def observe(obs: dict[str, jax.Array], state: Any) -> EntityObs:
        own = jnp.stack([_pad(obs[agent], own_width) for agent in source.agents])
        avail = exists & _available(source, state, spec) if discrete else None
        central_state = None if central is None else central(state)
        return flat_obs(spec, own, avail=avail, state=central_state)

    return spec, observe


def _adapt_spread(source: Any, episode_limit: int) -> tuple[Spec, Observe]:
    """Present simple spread as entities.

    An agent observes its own velocity and position, and the relative positions of the other
    agents and the landmarks. JaxMARL's observation is velocity | position | landmarks | others
    | messages. The messages are dropped, because these agents are silent and they are zero.
    """
    n, m = source.num_agents, source.num_landmarks
    counts, discrete = _action_widths(source)
    spec = Spec(
        n_agents=n,
        n_actions=counts[0],
        own_width=4,
        groups=(Group("allies", n - 1, 2, n, 4), Group("landmarks", m, 2, m, 2)),
        global_width=0,
        episode_limit=episode_limit,
        action_target=(-1,) * counts[0],
        discrete=discrete,
    )
    own_end = 4
    landmarks_end = own_end + 2 * m
    allies_end = landmarks_end + 2 * (n - 1)

    def central_state(state: Any) -> CentralState:
        features = jnp.zeros(0)
        agents = jnp.concatenate([state.p_pos[:n], state.p_vel[:n]], axis=-1)
        landmarks = state.p_pos[n:]
        mask = jnp.ones(n, bool), jnp.ones(m, bool)
        return CentralState(features=features, rows=(agents, landmarks), mask=mask)

    def observe(obs: dict[str, jax.Array], state: Any) -> EntityObs:
        flat = jnp.stack([obs[agent] for agent in source.agents])
        own, landmarks, allies, _ = jnp.split(
            flat, (own_end, landmarks_end, allies_end), axis=-1
        )
        flat_part = flat_obs(spec, own, state=jnp.zeros(0))
        return flat_part.replace(
            rows=(allies.reshape(n, n - 1, 2), landmarks.reshape(n, m, 2)),
            mask=(jnp.ones((n, n - 1), bool), jnp.ones((n, m), bool)),
            state=central_state(state),
        )

    return spec, observe


def _action_widths(source: Any) -> tuple[list[int], bool]:
    """Return the action count or vector width of each agent, and if actions are discrete."""
    from jaxmarl.environments.spaces import Box, Discrete

    spaces = [source.action_space(agent) for agent in source.agents]
    if all(isinstance(space, Discrete) for space in spaces):
        return [space.n for space in spaces], True
    if all(isinstance(space, Box) and len(space.shape) == 1 for space in spaces):
        return [space.shape[0] for space in spaces], False
    raise ValueError(
        f"{source.name}: action spaces must all be Discrete or all be vectors"
    )


def _to_space(space: Any, action: jax.Array) -> jax.Array:
    """Map an action to JaxMARL's space; components beyond the agent's own are dropped."""
    if hasattr(space, "n"):
        return jnp.minimum(action, space.n - 1)
    return space.low + 0.5 * (action[: space.shape[0]] + 1.0) * (space.high - space.low)


def _available(source: Any, state: Any, spec: Spec) -> Bool[Array, "N A"]:
    """Return JaxMARL's mask of available actions; all True if there is none."""
    try:
        avail = source.get_avail_actions(state)
    except NotImplementedError:
        return jnp.ones((spec.n_agents, spec.n_actions), bool)
    masks = [_pad(avail[agent], spec.n_actions) > 0 for agent in source.agents]
    return jnp.stack(masks)


def _central_state_fn(
    source: Any, state: Any
) -> Callable[[Any], Float[Array, "Fs"]] | None:
    """Return a function from the state to JaxMARL's world state as a vector, if it has one."""
    world_state = getattr(source, "get_world_state", None)
    if world_state is None or not hasattr(jax.eval_shape(world_state, state), "shape"):
        return None
    return lambda state: jnp.ravel(world_state(state)).astype(jnp.float32)


def _episode_limit(source: Any) -> int:
    """Return the largest number of actions in an episode.

    It is ``max_steps + 1``, because some environments test the counter before they increment it.
    """
    if not hasattr(source, "max_steps"):
        raise ValueError(f"{source.name}: has no max_steps; set env.episode_limit")
    return int(source.max_steps) + 1


def _check_step_counter(source: Any) -> None:
    """Check that the state has a step counter, by which ``step`` finds terminal states."""
    _, state = jax.eval_shape(source.reset, jax.random.key(0))
    if not hasattr(state, "step"):
        raise ValueError(
            f"{source.name}: the state has no field 'step', which is needed to separate "
            "termination from the time limit; choose another environment"
        )


def _pad(x: jax.Array, width: int) -> Float[Array, "F"]:
    x = jnp.ravel(x).astype(jnp.float32)
    return jnp.pad(x, (0, width - x.size))


def _to_arrays(state: Any) -> Any:
    """Convert Python scalars in a state to arrays, so that dtypes stay the same in a scan."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state
    )


def _check_options(source: type, options: dict[str, Any]) -> None:
    """Check option names, because particle environments accept any keyword."""
    known = {
        name
        for base in source.__mro__
        for name in inspect.signature(base.__init__).parameters
    }
    known -= {"self", "args", "kwargs"}
    for option, value in options.items():
        if option in known:
            continue
        near = difflib.get_close_matches(option, sorted(known), n=1)
        fix = (
            f"did you mean {near[0]}?"
            if near
            else f"expected one of {', '.join(sorted(known))}"
        )
        raise ConfigError(
            f"env.{option}={value!r}: unknown option of {source.__name__}; {fix}"
        )
