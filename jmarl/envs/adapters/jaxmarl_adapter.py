"""Any cooperative JaxMARL environment as an ``Env``, through its ``step_env``.

JaxMARL's own ``step`` replaces the last observation of an episode by the first of the next and
calls a time limit termination. The adapter uses neither: episodes end as ``batched`` ends them,
and the time limit is told from a terminal state by asking the same transition again with the
clock at zero (the compiler computes what both have in common once).

Observations of unequal width are padded with zeros and unequal action counts masked. Every agent
of the environment is a learner, so competitive ones make no sense here.
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

from jmarl.config import check
from jmarl.envs.batched import SingleEnv, Step, batched, count, flat_obs, flat_spec
from jmarl.envs.names import JAXMARL, PREFIX
from jmarl.types import CentralState, EntityObs, Env, Group, Key, Spec


Observe = Callable[[dict[str, jax.Array], Any], EntityObs]
"""JaxMARL's observations and state of one world -> ours."""


def make(
    name: str,
    *,
    continuous: bool | None = None,
    episode_limit: int | None = None,
    **options: Any,
) -> Env:
    """Build ``mpe_spread``, another short name of the catalogue, or ``jaxmarl_<ID>``.

    ``continuous=True`` chooses the continuous actions of a particle world, whose components
    in [0, 1] are mapped from our [-1, 1]; a name that ends in ``_continuous`` implies it.
    ``episode_limit`` cuts episodes earlier than the world itself, and is needed where the world
    has no ``max_steps``. The other options are those of JaxMARL's constructor (``num_agents``,
    ``max_steps``).
    Raises ``ValueError`` for an unknown id or option, an option of a wrong type or value, a space that
    cannot be carried over, or a state without a step counter.
    """
    limit = None if episode_limit is None else count("episode_limit", episode_limit)
    if continuous is not None:
        check(
            isinstance(continuous, bool), "env.continuous", continuous, "expected bool"
        )
    env_id = JAXMARL[name][0] if name in JAXMARL else name.removeprefix(PREFIX)
    if name.endswith("_continuous") if continuous is None else continuous:
        options["action_type"] = "Continuous"
    source = _jaxmarl().make(env_id, **options)
    _check_options(type(source), options)
    _check_clock(source)
    limit = _episode_limit(source) if limit is None else limit
    spec, observe = (
        _spread(source, limit)
        if env_id == "MPE_simple_spread_v3"
        else _flat(source, limit)
    )
    return batched(_world(name, source, spec, observe))


def _jaxmarl() -> Any:
    """The package, imported on first use: that initializes JAX's backend, and prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("jaxmarl")


def _world(name: str, source: Any, spec: Spec, observe: Observe) -> SingleEnv:
    spaces = [source.action_space(agent) for agent in source.agents]

    def reset(key: Key) -> tuple[Any, EntityObs]:
        obs, state = source.reset(key)
        return _arrays(state), observe(obs, state)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        actions = {
            agent: _to_space(*pair)
            for agent, *pair in zip(source.agents, spaces, action, strict=True)
        }
        obs, after, reward, done, _ = source.step_env(key, state, actions)
        unhurried = state.replace(step=jnp.zeros_like(state.step))
        terminated = source.step_env(key, unhurried, actions)[3]["__all__"]
        rewards = jnp.stack(
            [jnp.asarray(reward[agent], jnp.float32) for agent in source.agents]
        )
        return _arrays(after), Step(
            observe(obs, after), rewards, terminated, done["__all__"]
        )

    return SingleEnv(name, spec, reset, step)


def _flat(source: Any, limit: int) -> tuple[Spec, Observe]:
    """Flat observations of equal width, and the world state where JaxMARL has one."""
    obs, state = jax.eval_shape(source.reset, jax.random.key(0))
    own_width = max(obs[agent].size for agent in source.agents)
    central = _central(source, state)
    counts, discrete = _actions(source)
    spec = flat_spec(
        source.num_agents,
        own_width,
        max(counts),
        limit,
        global_width=None if central is None else jax.eval_shape(central, state).size,
        discrete=discrete,
    )
    exists = jnp.arange(spec.n_actions) < jnp.asarray(counts)[:, None]

    def observe(obs: dict[str, jax.Array], state: Any) -> EntityObs:
        own = jnp.stack([_pad(obs[agent], own_width) for agent in source.agents])
        avail = exists & _available(source, state, spec) if discrete else None
        return flat_obs(
            spec, own, avail=avail, state=None if central is None else central(state)
        )

    return spec, observe


def _spread(source: Any, limit: int) -> tuple[Spec, Observe]:
    """Simple spread as entities: itself (velocity, position), the others and the landmarks (relative position).

    JaxMARL's observation is velocity | position | landmarks | others | what the others said;
    the last is left out, because these agents are silent and it is always zero.
    """
    n, m = source.num_agents, source.num_landmarks
    counts, discrete = _actions(source)
    spec = Spec(
        n_agents=n,
        n_actions=counts[0],
        own_width=4,
        groups=(Group("allies", n - 1, 2, n, 4), Group("landmarks", m, 2, m, 2)),
        global_width=0,
        episode_limit=limit,
        action_target=(-1,) * counts[0],
        discrete=discrete,
    )

    def observe(obs: dict[str, jax.Array], state: Any) -> EntityObs:
        flat = jnp.stack([obs[agent] for agent in source.agents])
        own, landmarks, allies, _ = jnp.split(
            flat, (4, 4 + 2 * m, 4 + 2 * m + 2 * (n - 1)), axis=-1
        )
        return flat_obs(spec, own, state=jnp.zeros(0)).replace(
            rows=(allies.reshape(n, n - 1, 2), landmarks.reshape(n, m, 2)),
            mask=(jnp.ones((n, n - 1), bool), jnp.ones((n, m), bool)),
            state=CentralState(
                features=jnp.zeros(0),
                rows=(
                    jnp.concatenate([state.p_pos[:n], state.p_vel[:n]], axis=-1),
                    state.p_pos[n:],
                ),
                mask=(jnp.ones(n, bool), jnp.ones(m, bool)),
            ),
        )

    return spec, observe


def _actions(source: Any) -> tuple[list[int], bool]:
    """Number of actions, or width of the action vector, of each agent; and whether they are discrete."""
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
    """An action of ours in JaxMARL's space; components beyond an agent's own are dropped."""
    if hasattr(space, "n"):
        return jnp.minimum(action, space.n - 1)
    return space.low + 0.5 * (action[: space.shape[0]] + 1.0) * (space.high - space.low)


def _available(source: Any, state: Any, spec: Spec) -> Bool[Array, "N A"]:
    """JaxMARL's own mask where it has one, else all True."""
    try:
        avail = source.get_avail_actions(state)
    except NotImplementedError:
        return jnp.ones((spec.n_agents, spec.n_actions), bool)
    return jnp.stack(
        [_pad(avail[agent], spec.n_actions) > 0 for agent in source.agents]
    )


def _central(source: Any, state: Any) -> Callable[[Any], Float[Array, "Fs"]] | None:
    """JaxMARL's world state as a vector, if it has one that is an array."""
    world_state = getattr(source, "get_world_state", None)
    if world_state is None or not hasattr(jax.eval_shape(world_state, state), "shape"):
        return None
    return lambda state: jnp.ravel(world_state(state)).astype(jnp.float32)


def _episode_limit(source: Any) -> int:
    """Most actions in an episode: one more than ``max_steps``, since some worlds test it before counting."""
    if not hasattr(source, "max_steps"):
        raise ValueError(f"{source.name}: has no max_steps; give env.episode_limit")
    return int(source.max_steps) + 1


def _check_clock(source: Any) -> None:
    """Termination is told from the time limit by setting the step counter of the state to zero."""
    state = jax.eval_shape(source.reset, jax.random.key(0))[1]
    if not hasattr(state, "step"):
        raise ValueError(
            f"{source.name}: its state has no field 'step', by which a time limit is told from an end"
        )


def _pad(x: jax.Array, width: int) -> Float[Array, "F"]:
    x = jnp.ravel(x).astype(jnp.float32)
    return jnp.pad(x, (0, width - x.size))


def _arrays(state: Any) -> Any:
    """Python scalars in a state become arrays of the type they keep from then on."""
    return jax.tree.map(
        lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state
    )


def _check_options(source: type, options: dict[str, Any]) -> None:
    """Reject an option that no constructor of ``source`` names: particle worlds swallow any keyword."""
    known = {
        name
        for base in source.__mro__
        for name in inspect.signature(base.__init__).parameters
    }
    known -= {"self", "args", "kwargs"}
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, sorted(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{source.__name__} has no option {option!r}{hint}")
