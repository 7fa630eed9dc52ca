"""Tests of the names of battles and of the registry."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jmarl.envs import registry
from jmarl.envs.battle.scenario import SCENARIOS, get_scenario, parse_team


def test_all_smax_scenarios_are_listed():
    listed = dict(registry.names())
    assert {f"smax_{name}" for name in SCENARIOS} <= set(listed)
    assert {"smax_5v5", "smax_10v10", "smax_20v20"} <= set(listed)
    assert all(listed.values())


def test_scenarios_equal_those_of_jaxmarl():
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

    assert set(MAP_NAME_TO_SCENARIO) == set(SCENARIOS)
    for name, expected in MAP_NAME_TO_SCENARIO.items():
        scenario = SCENARIOS[name]
        assert scenario.n_allies == expected.num_allies
        assert scenario.n_enemies == expected.num_enemies
        types = scenario.allies + scenario.enemies
        assert types == tuple(expected.unit_types.tolist())
        assert scenario.randomized == expected.smacv2_position_generation
        assert scenario.randomized == expected.smacv2_unit_type_generation


def test_smacv2_style_names_are_aliases():
    for size in (5, 10, 20):
        assert get_scenario(f"{size}v{size}") == get_scenario(f"smacv2_{size}_units")


def test_compositions_use_the_letters_of_smax():
    assert parse_team("2s3Z1z") == (2, 2, 3, 3, 3, 4)


@pytest.mark.parametrize("name", ["smax_3m", "smax_40v40", "smax_1280v1280"])
def test_battle_names_belong_to_the_battle_family(name):
    assert registry.family_of(name).name == "battle"


def test_error_for_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"smax_10m_vs_11m.*smax_NvN"):
        registry.make("smax_10m_v_11m")


def test_a_name_can_be_registered_only_once():
    registry.register("mine", lambda **options: options, doc="one line")
    try:
        assert registry.make("mine", size=3) == {"size": 3}
        assert ("mine", "one line") in registry.names()
        with pytest.raises(ValueError, match="already"):
            registry.register("mine", lambda: None)
        with pytest.raises(ValueError, match="already"):
            registry.register("smax_3m", lambda: None)
    finally:
        registry._ENTRIES.pop("mine")


def test_listing_does_not_import_jax():
    code = "import sys; from jmarl.envs import names; names(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
