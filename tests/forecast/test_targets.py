"""The table of devices, and errors of ``jmarl plan``."""

import re

import pytest

from jmarl.config import ConfigError
from jmarl.forecast.targets import Links, find_target, table


@pytest.mark.parametrize("name", table())
def test_each_device_has_its_rates_and_their_source(name):
    target = find_target(name)
    assert target.count == 1 and target.source
    assert target.memory > 1e10 and target.bandwidth > 1e11
    assert all(rate > 1e12 for rate in target.flops.values())
    assert 1e-7 < target.launch_s < 1e-5
    assert 1e9 < target.links.slow < target.links.fast < target.bandwidth
    assert target.links.domain >= 8 and 1e-7 < target.links.hop_s < 1e-4
    if target.platform == "gpu":
        assert f"device_memory_size: {target.memory} " in target.description
        assert target.description.count("{") == target.description.count("}")


def test_devices_add_arrays_within_domains_and_then_between_them():
    links = Links(domain=8, fast=100.0, slow=10.0, hop_s=0.5)
    assert links.reduce_seconds(3, 1000, 1) == 0
    assert links.reduce_seconds(3, 1000, 8) == 3 * 2 * 3 * 0.5 + 2 * 1000 * 7 / 8 / 100
    within = 2 * 1000 * 7 / 8 / 100
    assert links.reduce_seconds(0, 1000, 16) == within + 2 * 125 / 2 / 10
    times = [links.reduce_seconds(3, 1000, 2**k) for k in range(9)]
    assert times == sorted(times)


def test_links_of_one_speed_know_no_domains():
    """A reduction in two stages sends as much as one in a single stage."""
    nested, flat = (Links(size, 10.0, 10.0, 0.5) for size in (8, 64))
    times = [links.reduce_seconds(3, 1000, 64) for links in (nested, flat)]
    assert times[0] == pytest.approx(times[1])


@pytest.mark.parametrize(
    ("name", "count", "topology"),
    [("h100:8", 8, "1x1x8"), ("v5e:2x4", 8, "v5e:2x4"), ("v5e", 1, "v5e:2x2")],
)
def test_a_name_may_have_a_number_of_devices(name, count, topology):
    target = find_target(name)
    assert (target.count, target.topology) == (count, topology)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h10", "target=h10: unknown device; did you mean h100"),
        (
            "h100:2x4",
            "target=h100:2x4: invalid number of devices; write it as in h100:8",
        ),
        (
            "v5e:0x2",
            "target=v5e:0x2: invalid number of devices; write it as in v5e:2x4",
        ),
        ("v5e:8", "target=v5e:8: invalid number of devices; write it as in v5e:2x4"),
        ("v5e:2x2x2", "target=v5e:2x2x2: invalid number of devices"),
        ("", "target=: unknown device; expected one of h100"),
    ],
)
def test_an_unknown_target_is_an_error(name, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_target(name)
