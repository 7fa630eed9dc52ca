"""Parsing of environment options, with errors that name ``env.<option>``."""

from __future__ import annotations

from typing import Any

from jmarl.config import build, check_range
from jmarl.config.errors import MAX_SIZE


def parse_count(option: str, value: Any) -> int:
    """Return an environment option as an integer of at least 1.

    Args:
        option: Name of the option, without the prefix ``env.``.
        value: Value of the option; a float without a fraction is accepted.

    Returns:
        The value as an integer.

    Raises:
        ConfigError: If the value is not a whole number of at least 1.
    """
    key = f"env.{option}"
    number = build(int, value, key)
    check_range(key, number, 1, MAX_SIZE)
    return number


def parse_flag(option: str, value: Any) -> bool:
    """Return an environment option as a bool.

    Args:
        option: Name of the option, without the prefix ``env.``.
        value: Value of the option.

    Returns:
        The value.

    Raises:
        ConfigError: If the value is not a bool.
    """
    return build(bool, value, f"env.{option}")
