"""Search spaces: YAML files in ``configs/space`` or a user's own.

This module imports neither JAX nor Optuna.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from jmarl.config import ConfigError, check, read_value, suggest
from jmarl.config.choices import read_named, yaml_names
from jmarl.config.yaml_files import ancestors


KINDS = ("choices", "uniform", "log_uniform", "int")
EXAMPLE = "such as {uniform: [0.9, 0.99]}"
FIXED_KEYS = (
    "env",
    "eval",
    "experiment",
    "logger",
    "num_seeds",
    "resume",
    "run_dir",
    "seed",
    "sweep",
    "total_timesteps",
)
"""Keys, with those below them, in which trials may not differ."""


class Suggests(Protocol):
    """The part of ``optuna.Trial`` that a parameter needs."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of some choices."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, log: bool = ...
    ) -> float:
        """Return a number from an interval."""
        ...

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return an integer from an interval, which includes both ends."""
        ...


class Parameter(NamedTuple):
    """A configuration key that is tuned."""

    key: str
    kind: str
    """One of ``KINDS``."""
    values: tuple[Any, ...]
    """All choices, or both ends of the interval."""

    def words(self) -> list[str]:
        """Return overrides with all choices, or with both ends of the interval."""
        return [self.word(value) for value in self.values]

    def word(self, value: Any) -> str:
        """Return the override ``key=value``, with six digits of a float."""
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        return f"{self.key}={text}"

    def suggest(self, trial: Suggests) -> Any:
        """Return the value of a trial, drawn if it has none yet."""
        if self.kind == "choices":
            return trial.suggest_categorical(self.key, self.values)
        if self.kind == "int":
            return trial.suggest_int(self.key, *self.values)
        low, high = self.values
        log = self.kind == "log_uniform"
        return trial.suggest_float(self.key, low, high, log=log)


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        title: One-line title.
        parameters: One of ``KINDS`` with its values, by configuration key.
        name: Name of the file, without its ending.
    """

    title: str
    parameters: dict[str, Any]
    name: str = ""

    def __post_init__(self) -> None:
        check(len(self.parameters) > 0, "parameters", {}, "must have at least one key")
        self.entries()

    def entries(self) -> list[Parameter]:
        """Return the parameters."""
        return [_read(str(key), tree) for key, tree in self.parameters.items()]

    def words(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the overrides of a trial.

        Args:
            params: Values by key.
        """
        return tuple(p.word(params[p.key]) for p in self.entries() if p.key in params)


def _read(key: str, tree: Any) -> Parameter:
    """Read the values of a key; raise ``ConfigError`` if they are wrong."""
    is_fixed = any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED_KEYS)
    rule = "cannot be tuned, because trials with different values are not comparable"
    check(not is_fixed, "parameters", key, rule)
    name = f"parameters.{key}"
    is_pair = isinstance(tree, Mapping) and len(tree) == 1
    check(is_pair, name, tree, f"expected one of {', '.join(KINDS)}, {EXAMPLE}")
    kind, values = next(iter(tree.items()))
    if kind not in KINDS:
        fix = suggest(str(kind), KINDS, f"expected one of {', '.join(KINDS)}")
        raise ConfigError(f"{name}.{kind}: unknown kind; {fix}")
    check(isinstance(values, list), name, values, f"expected a list, {EXAMPLE}")
    read = _read_choices if kind == "choices" else _read_interval
    return Parameter(key, kind, read(f"{name}.{kind}", kind, values))


def _read_choices(key: str, kind: str, values: list[Any]) -> tuple[str, ...]:
    """Return choices as texts of the command line, because some are lists."""
    texts = tuple(json.dumps(value) for value in values)
    texts = tuple(text.strip('"').replace(" ", "") for text in texts)
    check(len(texts) > 1, key, values, f"{kind} must have at least two values")
    check(len(set(texts)) == len(texts), key, values, "two choices are equal")
    return texts


def _read_interval(key: str, kind: str, values: list[Any]) -> tuple[float, ...]:
    numbers = [read_value(key, str(value)) for value in values]
    are_numbers = all(type(number) in (int, float) for number in numbers)
    is_pair = len(numbers) == 2 and are_numbers
    check(is_pair, key, values, "expected two numbers, [low, high]")
    low, high = numbers
    check(low < high, key, values, "empty interval; low must be less than high")
    check(abs(low) < math.inf > abs(high), key, values, "must be finite")
    if kind == "int":
        are_integers = all(number == int(number) for number in numbers)
        check(are_integers, key, values, "expected two integers")
        return int(low), int(high)
    check(kind == "uniform" or low > 0, key, values, "low must be greater than 0")
    return float(low), float(high)


def read_space(name: str) -> Space:
    """Read a search space.

    Args:
        name: Name of a file in ``configs/space``, or the path of a YAML file.

    Raises:
        ConfigError: If the space is unknown or its file is wrong.
    """
    return read_named(Space, "space", name)


def default_space(system: str) -> str:
    """Return the space of a system: its own, or that of the nearest file that it builds on.

    Raises:
        ConfigError: If there is none.
    """
    known = yaml_names("space")
    names = [name.lstrip("_") for name in ancestors("system", system)]
    found = next((name for name in names if name in known), "")
    rule = (
        f"{system} has no search space; name one of {', '.join(known)}, or a YAML file"
    )
    check(found != "", "space", "", rule)
    return found
