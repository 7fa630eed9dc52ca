"""Errors of the configuration, and the checks that raise them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """A key or a value that cannot be used. One line; the command line prints it and exits with 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar of ``known``; of dotted keys the last part counts too (``lr`` finds ``system.lr``)."""

    def likeness(key: str) -> float:
        ratios = [
            difflib.SequenceMatcher(None, word, form).ratio()
            for form in (key, key.rpartition(".")[2])
        ]
        return max(ratios[0], 0.99 * ratios[1])

    return max(known, key=likeness, default="none")


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ``ConfigError`` with the text ``key=value: rule`` unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def check_range(
    key: str, value: float, low: float = -math.inf, high: float = math.inf
) -> None:
    """``low <= value <= high``, both ends allowed; NaN is outside of every range."""
    if high == math.inf:
        rule = f"must be at least {low:g}"
    elif low == -math.inf:
        rule = f"must be at most {high:g}"
    else:
        rule = f"must lie in [{low:g}, {high:g}]"
    check(low <= value <= high, key, value, rule)


def check_positive(key: str, value: float) -> None:
    """``0 < value < infinity``."""
    check(0 < value < math.inf, key, value, "must be greater than 0 and finite")
