"""Errors of the configuration, and the checks that raise them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """Invalid configuration, as one line. The command line prints it and exits with 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known key or name that is most similar to a word.

    The last part of a dotted key is compared too, so ``lr`` finds ``system.lr``.
    """

    def similarity(key: str) -> float:
        last_part = key.rpartition(".")[2]
        whole = difflib.SequenceMatcher(None, word, key).ratio()
        last = difflib.SequenceMatcher(None, word, last_part).ratio()
        return max(whole, 0.99 * last)

    return max(known, key=similarity, default="none")


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ``ConfigError`` with the text ``key=value: rule`` unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def check_range(
    key: str, value: float, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise ``ConfigError`` unless ``low <= value <= high``. NaN is outside every range."""
    if high == math.inf:
        rule = f"must be at least {low:g}"
    elif low == -math.inf:
        rule = f"must be at most {high:g}"
    else:
        rule = f"must lie in [{low:g}, {high:g}]"
    check(low <= value <= high, key, value, rule)


def check_positive(key: str, value: float) -> None:
    """Raise ``ConfigError`` unless a value is positive and finite."""
    check(0 < value < math.inf, key, value, "must be greater than 0 and finite")
