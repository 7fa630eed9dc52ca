"""Every registered environment passes ``check_env``, and ``check_env`` detects common defects."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jmarl import envs
from jmarl.envs.catalog import JAXMARL, JUMANJI, PROBES
from jmarl.envs.conformance import check_env
from jmarl.envs.grids.grid_names import FORAGING, WAREHOUSES


QUICK = [
    "smax_3m",
    "smax_1v2+2v1",
    "smac_3m",
    "mpe_spread",
    "mpe_spread_continuous",
    "jumanji_lbf_8x8-2p-2f-coop",
    "jumanji_rware_tiny-2ag",
    "lbf_8x8-2p-2f-coop",
    "rware_tiny-2ag",
    *PROBES,
]
OTHERS = [
    *(
        name
        for name in (*JAXMARL, *JUMANJI, *WAREHOUSES, *FORAGING)
        if name not in QUICK
    ),
    "jaxmarl_switch_riddle",
    "jaxmarl_overcooked",
    "jumanji_rware_small-4ag-easy",
    "rware_medium-12ag-hard",
    "lbf_1s-5x7-9p-2f",
]
LARGER_BATTLES = ["smax_2s3z", "smax_5m_vs_6m", "smax_5v5", "smax_10v10"]


@pytest.mark.parametrize("name", QUICK)
def test_conforms(name):
    env = envs.make(name)
    assert env.name == name
    check_env(env, jax.random.key(0), batch=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS + LARGER_BATTLES)
def test_others_conform(name):
    check_env(envs.make(name), jax.random.key(0), batch=3)


@pytest.mark.slow
def test_reset_pool_conforms():
    check_env(envs.make("smax_3m", reset_pool=2), jax.random.key(0), batch=3)


def test_listing_does_not_import_jax():
    code = "import sys; from jmarl import envs; envs.names(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_catalog_lists_every_probe():
    from jmarl.envs import probes

    assert set(PROBES) == set(probes.PROBES)


def on_step(env, change):
    """Return a defective copy whose ``step`` returns ``change(before, timestep, action)``."""

    def step(key, state, action):
        after, timestep = env.step(key, state, action)
        return after, change(state, timestep, action)

    return env._replace(step=step)


def with_obs(timestep, **fields):
    return timestep.replace(obs=timestep.obs.replace(**fields))


def auto_reset(env):
    """Return a copy with same-step reset: the last row already has the next first observation."""

    def step(key, state, action):
        after, ended = env.step(key, state, action)
        fresh, first = env.step(key, after, action)

        def pick(x, y):
            mask = ended.last.reshape((-1,) + (1,) * (x.ndim - 1))
            return jnp.where(mask, x, y)

        merged = ended.replace(
            obs=jax.tree.map(pick, first.obs, ended.obs), first=ended.last
        )
        return jax.tree.map(pick, fresh, after), merged

    return env._replace(step=step)


def action_leaks_into_reset(state, timestep, action):
    first = timestep.first[:, None, None]
    own = jnp.where(first, action[..., None], timestep.obs.own)
    return with_obs(timestep, own=own.astype(jnp.float32))


def envs_interact(state, timestep, action):
    first = timestep.first[:, None, None]
    shift = jnp.where(first, 0.0, action.mean())
    return with_obs(timestep, own=timestep.obs.own + shift)


def no_action_when_dead(state, timestep, action):
    alive = timestep.obs.alive[..., None]
    return with_obs(timestep, avail=timestep.obs.avail & alive)


def no_action_on_the_first_row(state, timestep, action):
    first = timestep.first[:, None, None]
    return with_obs(timestep, avail=timestep.obs.avail & ~first)


STEP_DEFECTS = {
    "no first": (
        lambda state, ts, action: ts.replace(first=jnp.zeros_like(ts.first)),
        "first must be True",
    ),
    "reward on reset": (
        lambda state, ts, action: ts.replace(reward=ts.reward + 1),
        "reward must be zero",
    ),
    "both flags": (
        lambda state, ts, action: ts.replace(truncated=ts.last),
        "both True",
    ),
    "action not ignored": (action_leaks_into_reset, "must be ignored"),
    "environments interact": (envs_interact, "another"),
    "no action when dead": (no_action_when_dead, "without any action"),
    "no action on the first row": (
        no_action_on_the_first_row,
        "alive without any action",
    ),
    "not finite": (
        lambda state, ts, action: with_obs(ts, own=ts.obs.own / 0),
        "not finite",
    ),
    "dtype": (
        lambda state, ts, action: ts.replace(reward=ts.reward.astype(jnp.int32)),
        "disagree",
    ),
}
SPEC_DEFECTS = {
    "width": ({"own_width": 9}, "obs.own has shape"),
    "too long": ({"episode_limit": 3}, "exceeds episode_limit"),
    "action_target": ({"action_target": (-1,)}, "action_target has length"),
    "outcomes": ({"outcomes": ("won",)}, "lacks the outcomes"),
    "classes": (
        {"class_actions": ((True,) * 3,) * 2},
        "class_actions must have 1 rows of 3 actions",
    ),
    "actions of a class": (
        {"class_actions": ((True,),)},
        "class_actions must have 1 rows of 3 actions",
    ),
    "action that a class cannot take": (
        {"class_actions": ((True, False, True),)},
        "avail offers an action that class_actions denies",
    ),
}


def assert_violates(env, message):
    with pytest.raises(AssertionError, match=message):
        check_env(env, jax.random.key(1), batch=2)


@pytest.mark.parametrize("name", STEP_DEFECTS)
def test_check_env_detects_a_defective_step(name):
    change, message = STEP_DEFECTS[name]
    assert_violates(on_step(envs.make("probe_death"), change), message)


@pytest.mark.parametrize("name", SPEC_DEFECTS)
def test_check_env_detects_a_wrong_spec(name):
    changes, message = SPEC_DEFECTS[name]
    env = envs.make("probe_death")
    assert_violates(env._replace(spec=env.spec._replace(**changes)), message)


def test_check_env_detects_auto_reset():
    assert_violates(auto_reset(envs.make("probe_death")), "first")


def test_check_env_detects_features_of_masked_rows():
    env = envs.make("mpe_spread")

    def reset(key, batch):
        state, timestep = env.reset(key, batch)
        mask = tuple(jnp.zeros_like(m) for m in timestep.obs.mask)
        return state, with_obs(timestep, mask=mask)

    assert_violates(env._replace(reset=reset), "'allies' whose mask is False")
