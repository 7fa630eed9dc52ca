"""Sizes for the hardware, from the preset ``configs/arch/<name>.yaml`` that ``arch`` selects."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

import yaml

from jmarl.config.choices import configs_dir, yaml_names
from jmarl.config.errors import MAX_SIZE, ConfigError, check_range
from jmarl.config.parsing import build, flatten


def fill_sizes(tree: dict[str, Any], platform: str, shards: int) -> dict[str, Any]:
    """Replace the sizes that are null in place, and return them by dotted key.

    If only one of ``num_envs`` and ``system.minibatches`` is given, the other is fitted to it.
    ``num_envs`` is chosen as a multiple of shards x minibatches. A given ``num_envs`` gets as
    many shards as divide it, and then as many minibatches as fit, up to the preset. The keys
    ``arch.num_envs`` and ``arch.minibatches``, the usual sizes of the preset, are removed from
    the tree.
    """
    flat = flatten(tree)
    given = {key: value for key, value in flat.items() if value not in (None, "auto")}
    sizes = ChainMap({}, given, _read_preset(given.get("arch.name", platform)))
    if "system.minibatches" in flat and "system.minibatches" not in sizes:
        envs = _size(sizes, "num_envs" if "num_envs" in sizes else "arch.num_envs")
        per_shard = envs // math.gcd(shards, envs)
        most = min(_size(sizes, "arch.minibatches"), per_shard)
        counts = range(most, 0, -1)
        sizes["system.minibatches"] = next(n for n in counts if per_shard % n == 0)
    if "num_envs" not in sizes:
        minibatches = _size(sizes, "system.minibatches", 1)
        check_range("system.minibatches", minibatches, 1, MAX_SIZE // shards)
        unit = shards * minibatches
        usual_units = round(_size(sizes, "arch.num_envs") / unit)
        sizes["num_envs"] = max(1, usual_units) * unit
    if "eval.every" not in sizes:
        rows_per_update = _size(sizes, "num_envs") * _size(sizes, "rollout_length")
        twentieth = _size(sizes, "total_timesteps") // 20
        sizes["eval.every"] = max(twentieth, rows_per_update)
    chosen = {key: sizes[key] for key in flat if key not in given and key in sizes}
    for key, value in chosen.items():
        group, _, name = key.rpartition(".")
        (tree[group] if group else tree)[name] = value
    for name in ("num_envs", "minibatches"):
        tree.get("arch", {}).pop(name, None)
        chosen.pop(f"arch.{name}", None)
    return chosen


def _read_preset(name: str) -> dict[str, Any]:
    file = f"{name if name in yaml_names('arch') else 'cpu'}.yaml"
    text = (configs_dir() / "arch" / file).read_text(encoding="utf-8")
    return flatten({"arch": yaml.safe_load(text)}) | {"arch.name": name}


def _size(sizes: Mapping[str, Any], key: str, default: Any = None) -> int:
    if sizes.get(key, default) is None:
        raise ConfigError(f"{key}: missing; give it a value")
    size = build(int, sizes.get(key, default), key)
    check_range(key, size, 1)
    return size
