"""``env.layout=clash``: action j attacks enemy j, or heals ally j if the unit is a healer."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from option_worlds import Episodes, random_actions

from jmarl import load_config
from jmarl.config import ConfigError
from jmarl.envs import make
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.smac.smac_actions import n_own_actions
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_observe import spec
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.networks.agents import make_agent
from jmarl.types import BY_CLASS


BATCH = 24
STEPS = 30
ACTIONS = {
    **{"3m": 9, "8m": 14, "25m": 31, "5m_vs_6m": 12, "8m_vs_9m": 15, "10m_vs_11m": 17},
    **{"27m_vs_30m": 36, "MMM": 16, "MMM2": 18, "2s3z": 11, "3s5z": 14, "1c3s5z": 15},
    **{"3s5z_vs_3s6z": 15, "3s_vs_3z": 9, "3s_vs_4z": 10, "3s_vs_5z": 11},
    **{"2m_vs_1z": 7, "6h_vs_8z": 14, "2s_vs_1sc": 7, "corridor": 30},
    **{"so_many_baneling": 38, "bane_vs_bane": 30, "2c_vs_64zg": 70},
}
"""Numbers of actions of SMAC's maps."""


def clash_spec(name: str):
    return spec(Facts(parse_name(name), SmacConfig(layout="clash")))


@pytest.mark.parametrize("name", ACTIONS)
def test_a_map_has_as_many_actions_as_in_smac(name):
    found = clash_spec(f"smac_{name}")
    assert found.n_actions == ACTIONS[name]


def test_targets_depend_on_the_class_if_allies_can_heal():
    """Allies 0 to 4 or enemies 0 and 1; without healers, slots of enemies."""
    assert clash_spec("smac_4m1d_vs_2m").action_target[6:] == (BY_CLASS,) * 5
    assert clash_spec("smac_2m1d_vs_4m").action_target[6:] == (BY_CLASS,) * 3 + (5,)
    assert clash_spec("smac_3m").action_target[6:] == (2, 3, 4)


@pytest.mark.parametrize("network", ["hpn", "updet", "saqa"])
def test_agents_that_read_entities_are_an_error(network):
    config = load_config("qmix", ["env=smac_3m", f"network={network}"]).network
    make_agent(clash_spec("smac_3m"), config)
    rule = rf"^network.name={network!r}: .* or remove env.layout=clash"
    with pytest.raises(ConfigError, match=rule):
        make_agent(clash_spec("smac_4m1d_vs_2m"), config)


def test_a_class_attacks_all_enemies_or_heals_all_allies():
    found = clash_spec("smac_4m1d_vs_2m")
    names = [unit.name for unit in parse_name("smac_4m1d_vs_2m").units]
    able = dict(zip(names, np.asarray(found.class_actions), strict=True))
    assert list(able["marine"]) == [True] * (6 + 2) + [False] * 3
    assert able["medivac"].all()


def to_unified(episodes: Episodes, heals: np.ndarray) -> np.ndarray:
    """Return the unified action of each clash action of each agent, ``[B, N, A]``; -1 if none."""
    n, m, own = episodes.n, episodes.m, n_own_actions(episodes.facts)
    ally, rank = np.arange(n)[:, None], np.arange(max(n, m))
    attack = np.where(rank < m, own + rank, -1)
    heal = np.where((rank < n) & (rank != ally), own + m + rank - (rank > ally), -1)
    aimed = np.where(heals[..., None], heal, attack)
    plain = np.broadcast_to(np.arange(own), (*heals.shape, own))
    return np.concatenate([plain, aimed], axis=-1)


@pytest.mark.parametrize(
    "name",
    [
        "smac_2m1d_vs_4m",
        pytest.param("smac_4m1d_vs_2m", marks=pytest.mark.slow),
        pytest.param("smacv2_terran_4v3", marks=pytest.mark.slow),
    ],
)
def test_mapped_actions_have_the_same_results(name):
    """Masks, observations, states and rewards are equal, except for the order of actions."""
    unified = Episodes(parse_name(name))
    clash = Episodes(parse_name(name), layout="clash")
    state, obs = clash.first(BATCH)
    own = state  # both layouts have the same states, except for the last actions
    rng = np.random.default_rng(0)
    medivac = [unit.name for unit in unified.facts.unit_types].index("medivac")
    mapping = to_unified(clash, obs.unit_class == medivac)
    damage, healed = 0.0, False
    for t in range(STEPS):
        action = random_actions(obs, rng, n_own_actions(clash.facts))
        mapped = np.take_along_axis(mapping, action[..., None], -1)[..., 0]
        ours, theirs = clash.step(state, action, t), unified.step(own, mapped, t)
        state, obs, own = ours.state, ours.obs, theirs.state
        mask = np.take_along_axis(theirs.obs.avail, np.maximum(mapping, 0), -1)
        assert (obs.avail == (mask & (mapping >= 0))).all()
        assert (obs.avail.sum(-1) == theirs.obs.avail.sum(-1)).all()
        nothing = {"last_action": None}
        assert_equal(state.replace(**nothing), own.replace(**nothing))
        assert_equal(obs.replace(avail=None), theirs.obs.replace(avail=None))
        assert_equal(ours[2:], theirs[2:])
        damage += ours.reward.sum()
        healed |= bool(ours.state.healing[:, : clash.n].any())
    assert damage > 0
    assert healed


def assert_equal(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_wards_need_the_unified_layout(tmp_path):
    file = tmp_path / "guards.yaml"
    file.write_text(
        "allies: [{units: {guard: 2}, at: [8, 16]}]\n"
        "enemies: [{units: {marine: 2}, at: [24, 16]}]\n"
        "units: {guard: {like: zealot, abilities: [ward]}}\n"
    )
    with pytest.raises(ConfigError, match=r"^env.layout=clash: .* use env.layout="):
        make("battle", scenario=str(file), layout="clash")
