"""Every registered environment obeys one contract, and the contract catches what peers get wrong."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jmarl import envs
from jmarl.envs.conformance import check_env
from jmarl.envs.names import JAXMARL, JUMANJI, PROBES


QUICK = [
    "smax_3m",
    "smax_1v2+2v1",
    "mpe_spread",
    "mpe_spread_continuous",
    "lbf_8x8-2p-2f-coop",
    "rware_tiny-2ag",
    *PROBES,
]
OTHERS = [
    *(name for name in (*JAXMARL, *JUMANJI) if name not in QUICK),
    "jaxmarl_switch_riddle",
    "jaxmarl_overcooked",
    "rware_small-4ag-easy",
]
BATTLES = ["smax_2s3z", "smax_5m_vs_6m", "smax_5v5", "smax_10v10"]


@pytest.mark.parametrize("name", QUICK)
def test_conforms(name):
    env = envs.make(name)
    assert env.name == name
    check_env(env, jax.random.key(0), batch=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS + BATTLES)
def test_others_conform(name):
    check_env(envs.make(name), jax.random.key(0), batch=3)


@pytest.mark.slow
def test_a_pool_of_resets_conforms():
    check_env(envs.make("smax_3m", reset_pool=2), jax.random.key(0), batch=3)


def test_listing_needs_no_jax():
    code = "import sys; from jmarl import envs; envs.names(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_catalogue_lists_the_probes_there_are():
    from jmarl.envs import probes

    assert set(PROBES) == set(probes.PROBES)


def on_step(env, change):
    """A defective twin: ``change(before, timestep, action)`` is applied to what ``step`` returns."""

    def step(key, state, action):
        after, timestep = env.step(key, state, action)
        return after, change(state, timestep, action)

    return env._replace(step=step)


def with_obs(timestep, **fields):
    return timestep.replace(obs=timestep.obs.replace(**fields))


def auto_reset(env):
    """The peers' convention: the step that ends an episode already returns the next one's first observation."""

    def step(key, state, action):
        after, ended = env.step(key, state, action)
        anew, first = env.step(key, after, action)

        def pick(x, y):
            return jnp.where(ended.last.reshape((-1,) + (1,) * (x.ndim - 1)), x, y)

        merged = ended.replace(
            obs=jax.tree.map(pick, first.obs, ended.obs), first=ended.last
        )
        return jax.tree.map(pick, anew, after), merged

    return env._replace(step=step)


def action_leaks_into_reset(state, timestep, action):
    own = jnp.where(timestep.first[:, None, None], action[..., None], timestep.obs.own)
    return with_obs(timestep, own=own.astype(jnp.float32))


def worlds_meet(state, timestep, action):
    own = timestep.obs.own + jnp.where(
        timestep.first[:, None, None], 0.0, action.mean()
    )
    return with_obs(timestep, own=own)


TWINS = {
    "auto-reset": (auto_reset, "first|end flag"),
    "no first": (
        lambda e: on_step(e, lambda s, t, a: t.replace(first=jnp.zeros_like(t.first))),
        "first must be True",
    ),
    "reward on reset": (
        lambda e: on_step(e, lambda s, t, a: t.replace(reward=t.reward + 1)),
        "reward must be zero",
    ),
    "both flags": (
        lambda e: on_step(e, lambda s, t, a: t.replace(truncated=t.last)),
        "both True",
    ),
    "action not ignored": (
        lambda e: on_step(e, action_leaks_into_reset),
        "must be ignored",
    ),
    "worlds meet": (lambda e: on_step(e, worlds_meet), "another"),
    "no action when dead": (
        lambda e: on_step(
            e, lambda s, t, a: with_obs(t, avail=t.obs.avail & t.obs.alive[..., None])
        ),
        "without any action",
    ),
    "from nowhere": (
        lambda e: on_step(
            e, lambda s, t, a: with_obs(t, avail=t.obs.avail & ~t.first[:, None, None])
        ),
        "alive without any action",
    ),
    "not finite": (
        lambda e: on_step(e, lambda s, t, a: with_obs(t, own=t.obs.own / 0)),
        "not finite",
    ),
    "dtype": (
        lambda e: on_step(
            e, lambda s, t, a: t.replace(reward=t.reward.astype(jnp.int32))
        ),
        "disagree",
    ),
    "width": (
        lambda e: e._replace(spec=e.spec._replace(own_width=9)),
        "obs.own has shape",
    ),
    "too long": (
        lambda e: e._replace(spec=e.spec._replace(episode_limit=3)),
        "exceeds episode_limit",
    ),
    "action_target": (
        lambda e: e._replace(spec=e.spec._replace(action_target=(-1,))),
        "action_target has length",
    ),
    "outcomes": (
        lambda e: e._replace(spec=e.spec._replace(outcomes=("won",))),
        "lacks the outcomes",
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_contract_catches(name):
    twin, message = TWINS[name]
    with pytest.raises(AssertionError, match=message):
        check_env(twin(envs.make("probe_death")), jax.random.key(1), batch=2)


def test_contract_catches_rows_behind_a_false_mask():
    env = envs.make("mpe_spread")

    def reset(key, batch):
        state, timestep = env.reset(key, batch)
        return state, with_obs(
            timestep, mask=tuple(jnp.zeros_like(m) for m in timestep.obs.mask)
        )

    with pytest.raises(AssertionError, match="'allies' whose mask is False"):
        check_env(env._replace(reset=reset), jax.random.key(1), batch=2)
