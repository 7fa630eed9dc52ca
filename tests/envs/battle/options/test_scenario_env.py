"""The environment ``battle``: battles of scenario files, which runs store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.extend.core import ClosedJaxpr
from option_worlds import World

from jmarl.config import EvalConfig
from jmarl.config.choices import configs_dir, yaml_names
from jmarl.config.compose import load_config
from jmarl.config.errors import ConfigError
from jmarl.envs import make, registry
from jmarl.envs.battle.scenarios.scenario_file import parse
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.conformance import random_action
from jmarl.runs.folder import resume_config, write_config
from jmarl.runs.run import run
from jmarl.types import Env


DUEL = """\
limit: 5
allies: [{units: {marine: 2}, at: [14, 16]}]
enemies: [{units: {marine: 1}, at: [18, 16]}]
"""
ONE_LINE = (
    "{rules: smax, allies: [{units: {marine: 2}}], enemies: [{units: {marine: 1}}]}"
)
SMAX_DUEL = """\
rules: smax
limit: 5
allies: [{units: {marine: 1}}]
enemies: [{units: {marine: 1}}]
"""
BATCH = 8
STEPS = 40


@pytest.fixture
def duel(tmp_path) -> Path:
    path = tmp_path / "duel.yaml"
    path.write_text(DUEL)
    return path


def test_a_file_and_its_text_build_the_same_environment(duel):
    env, same = make("battle", scenario=str(duel)), make("battle", scenario=DUEL)
    assert env.name == same.name == "battle"
    assert env.spec == same.spec
    assert (env.spec.n_agents, env.spec.episode_limit) == (2, 5)


def test_options_apply_to_a_file(duel):
    env = make("battle", scenario=str(duel), layout="clash", pad=(3, 3))
    assert (env.spec.n_agents, env.spec.groups[1].size) == (3, 3)
    with pytest.raises(ConfigError, match=r"env.clip_spawns"):
        make("battle", scenario=str(duel), clip_spawns=True)
    smax = make("battle", scenario=ONE_LINE + "\n", clip_spawns=True)
    assert smax.spec.n_agents == 2


@pytest.mark.parametrize("text", [DUEL, ONE_LINE, ONE_LINE + "\n"])
def test_a_configuration_holds_the_text_of_the_file(duel, text):
    """It can be built when the file is gone, also from a file without a line break."""
    duel.write_text(text)
    config = load_config("ippo", ["env=battle", f"env.scenario={duel}"])
    duel.unlink()
    assert config.env["scenario"].strip() == text.strip()
    options = {key: value for key, value in config.env.items() if key != "name"}
    assert make("battle", **options).spec.n_agents == 2
    assert registry.inline_files("battle", config.env) == config.env


def test_a_run_folder_holds_the_battle(duel, tmp_path):
    config = load_config("ippo", ["env=battle", f"env.scenario={duel}"])
    write_config(tmp_path, config)
    duel.unlink()
    assert resume_config(str(tmp_path)).env == config.env


@pytest.mark.slow
def test_a_run_resumes_when_the_file_is_gone(duel, tmp_path):
    toy.install()
    env = registry.inline_files("battle", {"name": "battle", "scenario": str(duel)})
    folder = tmp_path / "run"
    config = toy.config(
        run_dir=str(folder),
        env=env,
        total_timesteps=64,
        eval=EvalConfig(4, 64, 1),
    )
    assert run(config) == 0
    duel.unlink()
    resumed = resume_config(str(folder), ["total_timesteps=128"])
    assert resumed.env["scenario"] == DUEL
    assert run(resumed) == 0


def test_a_file_with_the_rules_of_smax_ends_episodes_at_its_limit():
    """``spec.episode_limit`` is the step at which the environment truncates."""
    assert make("battle", scenario=SMAX_DUEL).spec.episode_limit == 5


SMAX = {
    "3m": ("marine: 3", "marine: 3"),
    "5m_vs_6m": ("marine: 5", "marine: 6"),
    "2s3z": ("zealot: 3, stalker: 2", "stalker: 2, zealot: 3"),
}
"""Teams of battles of SMAX."""


def smax_pair(name: str) -> tuple[Env, Env]:
    """Return the environment of a file and that of SMAX with the same teams."""
    allies, enemies = SMAX[name]
    text = (
        "rules: smax\nlimit: 100\n"
        f"allies: [{{units: {{{allies}}}}}]\nenemies: [{{units: {{{enemies}}}}}]\n"
    )
    return make("battle", scenario=text), make(f"smax_{name}", exact_limit=True)


@pytest.mark.parametrize("name", SMAX)
def test_a_file_with_the_rules_of_smax_has_the_program_of_smax(name):
    """Their resets and steps consist of the same operations and constants."""
    pair = smax_pair(name)
    ours, theirs = map(programs, pair)
    assert [str(program.jaxpr) for program in ours] == [
        str(program.jaxpr) for program in theirs
    ]
    jax.tree.map(
        np.testing.assert_array_equal,
        [program.consts for program in ours],
        [program.consts for program in theirs],
    )
    specs = [env.spec._replace(obs_codec=None) for env in pair]
    assert specs[0] == specs[1]


def programs(env: Env) -> list[ClosedJaxpr]:
    """Return the programs of a reset and of a step."""
    key = jax.random.key(0)
    state, _ = jax.eval_shape(partial(env.reset, batch=BATCH), key)
    action = jnp.zeros((BATCH, env.spec.n_agents), jnp.int32)
    reset = jax.make_jaxpr(partial(env.reset, batch=BATCH))(key)
    return [reset, jax.make_jaxpr(env.step)(key, state, action)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMAX)
def test_a_file_with_the_rules_of_smax_plays_as_smax(name):
    results = [play(env, STEPS) for env in smax_pair(name)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def play(env: Env, steps: int) -> list[Any]:
    """Return the states and time steps of random play."""
    state, timestep = env.reset(jax.random.key(0), BATCH)
    step = jax.jit(env.step)
    record = [(state, timestep)]
    for t in range(steps):
        key, act_key = jax.random.split(jax.random.key(t))
        action = random_action(act_key, timestep, env.spec)
        state, timestep = step(key, state, action)
        record.append((state, timestep))
    return record


SCALED = """\
limit: 5
orders: hold
allies: [{units: {marauder: 1}, at: [14, 16]}]
enemies: [{units: {marauder: 1}, at: [18, 16]}]
enemy_scale: 1.5
"""


def test_enemy_scale_multiplies_only_the_damage_of_the_enemies_before_armor():
    """A marauder deals 10 and 10 more to armored units, less 1 for their armor."""
    world = World(SCALED)
    case = world.case()
    ally = case.ally("marauder", 14, 16, cooldown=0.0)
    enemy = case.enemy("marauder", 18, 16, cooldown=0.0)
    world.aim(case, ally, "attack", enemy)
    full = world.first(1)[0].health[0]
    health = world.run([case])[0].state.health[0]
    np.testing.assert_allclose(full - health, [1.5 * 20 - 1, 20 - 1], atol=1e-5)
    assert np.all(full == 125)
    unscaled = SCALED.replace("enemy_scale: 1.5\n", "")
    rewards = [World(text).facts.battle.max_reward for text in (SCALED, unscaled)]
    assert rewards[0] == rewards[1]


@pytest.mark.parametrize("name", yaml_names("scenario"))
def test_a_named_scenario_is_a_file_of_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (configs_dir() / "scenario" / f"{name}.yaml").read_text()
    named = make("battle", scenario=name).spec
    assert named == make("battle", scenario=text).spec


@pytest.mark.parametrize("groups", [2, 3, 4, 5])
def test_a_scenario_of_groups_has_that_many(groups):
    spec = make("battle", scenario=f"groups_{groups}").spec
    assert (len(spec.group_actions), spec.n_agents) == (groups, 10)


def test_an_unknown_scenario_gets_the_nearest_name():
    message = r"^env.scenario='medci': no such scenario; did you mean medic\?$"
    with pytest.raises(ConfigError, match=message):
        make("battle", scenario="medci")


def test_the_option_enemy_scale_multiplies_that_of_the_battle():
    text = (configs_dir() / "scenario" / "medic.yaml").read_text()
    assert "enemy_scale: 0.75" in text
    scaled = parse(text.replace("enemy_scale: 0.75", "enemy_scale: 1.5"), "", "battle")
    option = Facts(parse(text, "", "battle"), SmacConfig(enemy_scale=2.0))
    assert option.table == Facts(scaled, SmacConfig()).table


@pytest.mark.parametrize("name", ["roles", "groups_3"])
def test_without_types_only_their_features_change_and_only_for_the_agents(name):
    shown, hidden = (
        make("battle", scenario=name, show_types=flag) for flag in (True, False)
    )
    columns = np.array(shown.spec.class_features)
    assert hidden.spec.class_features == ()
    assert hidden.spec == shown.spec._replace(
        class_features=(), obs_codec=hidden.spec.obs_codec
    )
    (_, first), (_, second) = (
        env.reset(jax.random.key(0), 2) for env in (shown, hidden)
    )
    one_hot = np.asarray(first.obs.own)[..., columns]
    np.testing.assert_array_equal(one_hot.argmax(-1), first.obs.unit_class)
    np.testing.assert_array_equal(one_hot.sum(-1), 1.0)

    def erased(x):
        return np.asarray(x.at[..., columns].set(0.0))

    np.testing.assert_array_equal(erased(first.obs.own), second.obs.own)
    for rows, others in zip(first.obs.rows, second.obs.rows, strict=True):
        np.testing.assert_array_equal(erased(rows), others)
    for rows, others in zip(first.obs.state.rows, second.obs.state.rows, strict=True):
        np.testing.assert_array_equal(rows, others)
