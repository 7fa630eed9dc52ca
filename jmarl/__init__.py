"""jmarl: cooperative multi-agent reinforcement learning, end to end on the accelerator.

The names below are imported on first use, so that ``import jmarl`` and ``--help`` do not import
JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from jmarl.config.compose import load_config as load_config
    from jmarl.training.anakin import Runner as Runner
    from jmarl.training.train import train as train

__version__ = "0.1.0"

_LAZY = {
    "Runner": "jmarl.training.anakin",
    "train": "jmarl.training.train",
    "load_config": "jmarl.config.compose",
}
__all__ = ["Runner", "__version__", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jmarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
