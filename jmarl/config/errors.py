"""Errors of the configuration, and the checks that raise them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


MAX_SIZE = 2**31 - 1
"""Largest size of an axis, because JAX counts with 32 bits."""
NEAR, NEAR_IF_SHORT = 0.75, 0.6
"""Least similarity of a suggestion to a word, and to a word of at most ``SHORT`` letters."""
SHORT = 4


class ConfigError(ValueError):
    """Invalid configuration, as one line. The command line prints it and exits with 2."""


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """List the known keys or names that are most similar to a word, if any are near it.

    The last part of a dotted key is compared too, so ``lr`` finds ``system.lr``. A part that
    contains the word is near, so ``batch`` finds ``system.batch_size``.
    """
    scores = {name: _similarity(word.lower(), name.lower()) for name in known}
    near = [name for name in scores if scores[name]]
    return sorted(near, key=lambda name: -scores[name])[:most]


def _similarity(word: str, name: str) -> float:
    """Return a number up to 1 if a word is near a name, else 0."""
    group, _, part = name.rpartition(".")
    rest = word.removeprefix(f"{group}.")  # a correct group alone does not count
    ratio = max(_ratio(rest, name), 0.99 * _ratio(rest, part))
    is_start = len(rest) >= SHORT - 1 and part.startswith(rest)
    if is_start or (len(rest) >= SHORT and rest in part):
        return max(ratio, NEAR + ratio / 10)
    return ratio if ratio >= (NEAR_IF_SHORT if len(rest) <= SHORT else NEAR) else 0.0


def _ratio(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word, name).ratio()


def suggest(word: str, known: Iterable[str], otherwise: str, most: int = 1) -> str:
    """Return ``did you mean <name>?`` for the nearest names, else ``otherwise``."""
    near = nearest(word, known, most)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ``ConfigError`` with the text ``key=value: rule`` unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def check_range(
    key: str, value: float, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise ``ConfigError`` unless ``low <= value <= high`` and the value is finite.

    NaN is outside every range.
    """
    if low > -math.inf and high < MAX_SIZE:
        rule = f"must lie in [{low:.10g}, {high:.10g}]"
    elif low == -math.inf or value > high:
        rule = f"must be at most {high:.10g}"
    else:
        rule = f"must be at least {low:g}"
    if value in (math.inf, -math.inf):
        rule += " and finite"
    is_finite = -math.inf < value < math.inf
    check(is_finite and low <= value <= high, key, value, rule)


def check_positive(key: str, value: float) -> None:
    """Raise ``ConfigError`` unless a value is positive and finite."""
    check(0 < value < math.inf, key, value, "must be greater than 0 and finite")
