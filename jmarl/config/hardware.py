"""Sizes of a run that are null: from the hardware preset, or from a size in rows.

The preset ``configs/arch/<name>.yaml``, which ``arch`` selects, has the number of environments.
Everything that learning depends on is specified in rows of experience, and its counts follow from
the number of environments. A preset therefore changes speed and memory, but not what is learned.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any

import yaml

from jmarl.config.choices import configs_dir, yaml_names
from jmarl.config.errors import MAX_SIZE, ConfigError, check_range
from jmarl.config.parsing import build, flatten


MIN_ROLLOUT = 16
"""Fewest time steps of a rollout that is specified in rows, for returns and memory."""
MAX_DEVIATION = 1.5
"""Largest factor between a size as requested in rows and the size of the run, without a warning."""


def fill_sizes(tree: dict[str, Any], platform: str, shards: int) -> dict[str, Any]:
    """Replace the sizes that are null in place, and return them by dotted key.

    * ``num_envs`` is the multiple of the shards nearest to the preset, and of the minibatches if
      these are given.
    * ``rollout_length`` follows from ``rollout_rows``.
    * ``system.minibatches`` is the divisor of ``num_envs`` that is nearest to
      ``system.minibatch_rows`` rows each. Divisors that keep all shards have precedence.
    * ``system.gradient_steps`` follows from ``system.rows_per_gradient_step``.

    Of a count that is given, the size in rows is set to what follows from it. The keys
    ``rollout_rows`` and ``arch.num_envs`` serve only here, and are removed from the tree.
    """
    flat = flatten(tree)
    given = {key: value for key, value in flat.items() if value not in (None, "auto")}
    sizes = ChainMap({}, given, _read_preset(given.get("arch.name", platform)))
    if "num_envs" not in sizes:
        sizes["num_envs"] = _preset_envs(sizes, shards)
    _fill_rollout(sizes)
    rows = _size(sizes, "num_envs") * _size(sizes, "rollout_length")
    if "system.minibatches" in flat:
        _fill_minibatches(sizes, rows, shards)
    if "system.gradient_steps" in flat:
        _fill_gradient_steps(sizes, rows)
    if "eval.every" not in sizes:
        sizes["eval.every"] = max(_size(sizes, "total_timesteps") // 20, rows)
    changed = {key: sizes[key] for key in flat if key in sizes}
    changed = {key: value for key, value in changed.items() if value != flat[key]}
    for key, value in changed.items():
        group, _, name = key.rpartition(".")
        (tree[group] if group else tree)[name] = value
    del tree["rollout_rows"]
    tree["arch"].pop("num_envs", None)
    changed.pop("arch.num_envs", None)
    return {key: value for key, value in changed.items() if key not in given}


def _preset_envs(sizes: Mapping[str, Any], shards: int) -> int:
    minibatches = _size(sizes, "system.minibatches", 1)
    check_range("system.minibatches", minibatches, 1, MAX_SIZE // shards)
    unit = shards * minibatches
    return max(1, round(_size(sizes, "arch.num_envs") / unit)) * unit


def _fill_rollout(sizes: MutableMapping[str, Any]) -> None:
    num_envs = _size(sizes, "num_envs")
    if "rollout_length" not in sizes:
        length = _size(sizes, "rollout_rows") // num_envs
        sizes["rollout_length"] = max(MIN_ROLLOUT, length)
    check_range("num_envs", num_envs, 1, MAX_SIZE)
    check_range("rollout_length", _size(sizes, "rollout_length"), 1, MAX_SIZE)


def _fill_minibatches(sizes: ChainMap[str, Any], rows: int, shards: int) -> None:
    if "system.minibatches" in sizes:
        minibatches = _size(sizes, "system.minibatches")
        sizes["system.minibatch_rows"] = min(max(1, rows // minibatches), MAX_SIZE)
        return
    asked = rows / _size(sizes, "system.minibatch_rows")

    def deviation(minibatches: int) -> float:
        return abs(math.log(minibatches / asked))

    num_envs = _size(sizes, "num_envs")
    keep_shards = _divisors(num_envs // math.gcd(shards, num_envs))
    best = min(keep_shards, key=deviation)
    if deviation(best) > math.log(MAX_DEVIATION) + 1e-9:
        best = min(_divisors(num_envs), key=deviation)
    sizes["system.minibatches"] = best


def _fill_gradient_steps(sizes: ChainMap[str, Any], rows: int) -> None:
    if "system.gradient_steps" in sizes:
        steps = _size(sizes, "system.gradient_steps")
        ratio = max(1, round(rows / steps))
        sizes["system.rows_per_gradient_step"] = min(ratio, MAX_SIZE)
    else:
        asked = rows / _size(sizes, "system.rows_per_gradient_step")
        sizes["system.gradient_steps"] = max(1, round(asked))


def _divisors(n: int) -> list[int]:
    small = [i for i in range(1, math.isqrt(n) + 1) if n % i == 0]
    return small + [n // i for i in small]


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
