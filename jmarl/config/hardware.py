"""``arch``: how many environments, minibatches and updates a call suit the hardware.

The sizes are data, in ``configs/arch/<name>.yaml``; a value that the user gives always wins.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from jmarl.config import ConfigError, build, check_range
from jmarl.config.choices import configs_dir, yaml_names


NEEDED = (
    *("num_envs", "rollout_length", "total_timesteps", "eval.every"),
    *("arch.name", "arch.num_envs", "arch.minibatches", "arch.updates_per_chunk"),
)
"""Keys that a composed configuration has, unless the user removed them."""


def resolve(
    tree: dict[str, Any], platform: str, lanes: int
) -> tuple[dict[str, Any], list[str]]:
    """Fill in what a composed configuration leaves open (null) for a platform (``cpu``, ``gpu``, ``tpu``).

    Takes and returns plain data; ``arch.num_envs`` and ``arch.minibatches`` say what to fill in
    and are used up. Where one of the two sizes is open it is fitted to the other, so that the
    environments divide into ``lanes`` x minibatches. The second result is what was decided for
    the user, as ``key=value``. Raises ``ConfigError`` for a key that was removed and a size of ``arch`` that is none.
    """
    _check_present(tree)
    arch = _filled(tree["arch"], platform)
    sizes = (
        _size("arch.num_envs", arch.pop("num_envs")),
        _size("arch.minibatches", arch.pop("minibatches")),
    )
    system = dict(tree["system"])
    num_envs, minibatches = _fit(
        tree["num_envs"], system.get("minibatches", 1), *sizes, lanes
    )
    if "minibatches" in system:
        system["minibatches"] = minibatches
    after = {
        **tree,
        "num_envs": num_envs,
        "arch": arch,
        "system": system,
        "eval": dict(tree["eval"]),
    }
    if after["eval"]["every"] is None:
        after["eval"]["every"] = _interval(after)
    return after, [
        f"{key}={value}"
        for key, value in _sizes(after).items()
        if _sizes(tree)[key] in (None, "auto")
    ]


def _check_present(tree: dict[str, Any]) -> None:
    for key in NEEDED:
        *parents, last = key.split(".")
        if last not in (tree[parents[0]] if parents else tree):
            raise ConfigError(f"{key}: missing; give it a value")


def _size(key: str, value: Any) -> int:
    size = build(int, value, key)
    check_range(key, size, 1)
    return size


def _filled(arch: dict[str, Any], platform: str) -> dict[str, Any]:
    name = platform if arch["name"] == "auto" else arch["name"]
    file = (
        configs_dir() / "arch" / f"{name if name in yaml_names('arch') else 'cpu'}.yaml"
    )
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {
        key: table.get(key) if value is None else value for key, value in arch.items()
    } | {"name": name}


def _fit(
    num_envs: Any, minibatches: Any, usual_envs: int, usual_minibatches: int, lanes: int
) -> tuple[Any, Any]:
    """The two sizes with the open ones (None) chosen; a given value that makes no sense is left to ``build``."""
    if minibatches is None:
        envs = num_envs if _natural(num_envs) else usual_envs
        minibatches = max(
            k
            for k in range(1, int(min(usual_minibatches, envs)) + 1)
            if k == 1 or envs % (lanes * k) == 0
        )
    if num_envs is None:
        unit = lanes * (minibatches if _natural(minibatches) else 1)
        num_envs = max(1, round(usual_envs / unit)) * unit
    return num_envs, minibatches


def _interval(tree: dict[str, Any]) -> int:
    """Rows between evaluations: a twentieth of the run, but at least one update."""
    total, *rows = (
        tree[key] if _natural(tree[key]) else 1
        for key in ("total_timesteps", "num_envs", "rollout_length")
    )
    return max(total // 20, math.prod(rows))


def _natural(value: Any) -> bool:
    return isinstance(value, int | float) and 1 <= value < math.inf


def _sizes(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        "arch.name": tree["arch"]["name"],
        "num_envs": tree["num_envs"],
        "system.minibatches": tree["system"].get("minibatches", 1),
        "arch.updates_per_chunk": tree["arch"]["updates_per_chunk"],
    }
