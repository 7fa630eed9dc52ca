"""Results of runs on the host: rows of metrics, intervals, tables and learning curves.

This package reads files and NumPy arrays. It does not import the packages that train.
``jmarl.results.load`` is imported on first use from ``jmarl.saved``, which reads run folders.
"""

from __future__ import annotations

import importlib
from typing import Any


_LAZY = {"load": "jmarl.saved.comparison.run_table"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jmarl.results' has no attribute {name!r}")
