"""``batched`` equals a loop over environments, limits episodes, and skips unneeded resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jmarl.config import ConfigError
from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.probes import cue


def walk(limit=5, terminated=True, truncated=False):
    """Return an environment of two agents on a line; ``terminated`` episodes end at random."""
    spec = flat_spec(2, 2, 3, limit, outcomes=("lucky",))

    def observe(state):
        return flat_obs(spec, jnp.stack([state["x"], jnp.cos(state["x"])], axis=-1))

    def reset(key):
        state = {"x": jax.random.normal(key, (2,)), "n": jnp.zeros((), jnp.int32)}
        return state, observe(state)

    def step(key, state, action):
        luck = jax.random.uniform(key)
        state = {"x": state["x"] + action - 1, "n": state["n"] + 1}
        out = Step(
            observe(state),
            state["x"].sum(),
            (luck < 0.2) & terminated,
            truncated,
            {"lucky": luck < 0.1},
        )
        return state, out

    return SingleEnv("walk", spec, reset, step)


def loop(env, key, batch, actions):
    """Step one environment at a time in Python, with explicit resets."""
    rows, limit = [], env.spec.episode_limit
    states = [env.reset(k)[0] for k in jax.random.split(key, batch)]
    count, over = [0] * batch, [False] * batch
    for t, action in enumerate(actions):
        step_key, reset_key = jax.random.split(jax.random.key(t))
        step_keys = jax.random.split(step_key, batch)
        reset_keys = jax.random.split(reset_key, batch)
        row = []
        for b in range(batch):
            if over[b]:
                states[b], obs = env.reset(reset_keys[b])
                count[b], over[b] = 0, False
                row.append((obs.own, 0.0, False, False, True, False))
                continue
            states[b], out = env.step(step_keys[b], states[b], action[b])
            count[b] += 1
            cut = count[b] >= limit and not out.terminated
            over[b] = bool(out.terminated) or cut
            row.append(
                (out.obs.own, out.reward, out.terminated, cut, False, out.info["lucky"])
            )
        rows.append([np.stack(field) for field in zip(*row, strict=True)])
    return [np.stack(field) for field in zip(*rows, strict=True)]


def play(env, key, batch, actions):
    state, first = jax.jit(env.reset, static_argnums=1)(key, batch)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(actions)))

    @jax.jit
    def run(state):
        step = lambda state, x: env.step(x[0], state, x[1])  # noqa: E731
        return jax.lax.scan(step, state, (keys, actions))[1]

    return first, run(state)


def test_equals_a_loop_with_explicit_resets():
    env, batch = walk(), 3
    actions = jax.random.randint(jax.random.key(7), (14, batch, 2), 0, 3)
    own, reward, terminated, truncated, first, lucky = loop(
        env, jax.random.key(1), batch, actions
    )
    _, rows = play(batched(env), jax.random.key(1), batch, actions)
    np.testing.assert_allclose(rows.obs.own, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        rows.reward,
        np.broadcast_to(reward[..., None], rows.reward.shape),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(rows.terminated, terminated)
    np.testing.assert_array_equal(rows.truncated, truncated)
    np.testing.assert_array_equal(rows.first, first)
    np.testing.assert_array_equal(rows.info["lucky"], lucky)
    assert terminated.any() and truncated.any()


@pytest.mark.parametrize(
    ("terminated", "expected"), [(False, (False, True)), (True, (True, False))]
)
def test_limit_truncates_unless_the_environment_terminates(terminated, expected):
    env = walk(limit=1)

    def step(key, state, action):
        _, out = env.step(key, state, action)
        return state, out._replace(terminated=terminated)

    _, rows = play(
        batched(env._replace(step=step)),
        jax.random.key(0),
        2,
        jnp.zeros((1, 2, 2), jnp.int32),
    )
    assert (rows.terminated[0, 0], rows.truncated[0, 0]) == expected


def test_truncation_by_the_environment_ends_the_episode():
    _, rows = play(
        batched(walk(9, False, True)),
        jax.random.key(0),
        2,
        jnp.zeros((3, 2, 2), jnp.int32),
    )
    np.testing.assert_array_equal(rows.truncated, [[True] * 2, [False] * 2, [True] * 2])
    np.testing.assert_array_equal(rows.first, [[False] * 2, [True] * 2, [False] * 2])


def primitives(jaxpr, into_cond):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        if eqn.primitive.name != "cond" or into_cond:
            for sub in jax.core.jaxprs_in_params(eqn.params):
                yield from primitives(sub, into_cond)


def test_reset_is_computed_only_when_needed():
    env = batched(walk())
    state, _ = env.reset(jax.random.key(0), 2)
    jaxpr = jax.make_jaxpr(env.step)(
        jax.random.key(0), state, jnp.zeros((2, 2), jnp.int32)
    ).jaxpr
    assert "erf_inv" in set(primitives(jaxpr, into_cond=True))
    assert "erf_inv" not in set(primitives(jaxpr, into_cond=False))


def test_sharded_environments_step_identically():
    env, batch = cue(), 8
    state, _ = env.reset(jax.random.key(0), batch)
    action = jnp.zeros((batch, 2), jnp.int32)
    mesh = jax.make_mesh((4,), ("env",), axis_types=(AxisType.Auto,))
    placed = jax.device_put((state, action), NamedSharding(mesh, PartitionSpec("env")))
    step = jax.jit(env.step)
    for t in range(6):
        state, expected = step(jax.random.key(t), state, action)
        placed_state, actual = step(jax.random.key(t), *placed)
        placed = (placed_state, placed[1])
        jax.tree.map(np.testing.assert_array_equal, expected, actual)


def test_flat_obs_defaults():
    spec = flat_spec(2, 3, 4, 10)
    obs = flat_obs(spec, jnp.arange(6.0).reshape(2, 3))
    assert spec.global_width == 6
    assert spec.n_slots == 0
    assert spec.action_target == (-1,) * 4
    np.testing.assert_array_equal(obs.state.features, jnp.arange(6.0))
    assert obs.avail.all()
    assert obs.avail.shape == (2, 4)
    assert obs.alive.all()
    assert not obs.joined.any()
    narrow = flat_obs(
        flat_spec(2, 3, 4, 10, global_width=1), jnp.zeros((2, 3)), state=jnp.ones(1)
    )
    np.testing.assert_array_equal(narrow.state.features, [1.0])


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "5"])
def test_episode_limit_must_be_an_integer_of_at_least_one(limit):
    with pytest.raises(ConfigError, match=r"^env\.episode_limit="):
        batched(walk(limit))
