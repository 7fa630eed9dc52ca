"""The configuration of a run: frozen, typed, hashable, free of JAX.

Defaults live in ``configs/*.yaml``, where each key stands with its meaning; the classes here
and in the system files hold types and rules. A rule that is broken raises ``ConfigError``,
whose text names the key, the value and the fix.
"""

from __future__ import annotations

import bisect
import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml


class ConfigError(ValueError):
    """A key or a value that cannot be used. One line; the command line prints it and exits with 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar of ``known``; of dotted keys the last part counts too (``lr`` finds ``system.lr``)."""

    def likeness(key: str) -> float:
        ratios = [difflib.SequenceMatcher(None, word, form).ratio() for form in (key, key.rpartition(".")[2])]
        return max(ratios[0], 0.99 * ratios[1])

    return max(known, key=likeness, default="none")


def check(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ``ConfigError`` with the text ``key=value: rule`` unless the rule holds."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def check_range(key: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
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


def read_value(key: str, text: str) -> Any:
    """The value of ``key=text``, in yaml; ``1e6`` and ``2e-3`` are numbers, which YAML 1.1 takes for text.

    Raises ``ConfigError`` for what is no yaml.
    """
    try:
        return _numbers(yaml.safe_load(text) if text else "")
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{key}={text}: cannot be read") from None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    number = isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value)
    return float(value) if number else value


def build(cls: Any, tree: Mapping[str, Any], path: str = "", also: Iterable[str] = ()) -> Any:
    """Make the frozen dataclass ``cls`` (or the right one of a union) from plain data.

    Nested dataclasses, ``Literal``, ``Optional``, unions of dataclasses (chosen by the value of
    their ``name`` field), tuples and ``dict`` are followed; an int does for a float, and a
    float without a fraction (``1e6``) for an int. ``path`` is the key under which ``tree``
    stands, ``also`` are further valid keys to name to someone who mistyped one.

    Raises ``ConfigError`` for a key that is unknown or missing and a value of a wrong type.
    """
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return _convert(cls, tree, path)
    kinds = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            near = nearest(_join(path, key), [*key_paths(cls, path), *also])
            raise ConfigError(f"{_join(path, key)}={tree[key]!r}: unknown key; the nearest valid one is {near}")
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in tree and not optional:
            raise ConfigError(f"{_join(path, name)}: missing; give it a value")
    return cls(**{key: _convert(kinds[key], value, _join(path, key)) for key, value in tree.items()})


def key_paths(kind: Any, path: str = "") -> list[str]:
    """Every dotted key that a configuration class has, those of its alternatives included."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return [p for f in dataclasses.fields(kind) for p in key_paths(hints[f.name], _join(path, f.name))]
    nested = [k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)]
    return [p for k in nested for p in key_paths(k, path)] or [path]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return build(kind, value, path)
    if origin is Literal:
        choices = [str(a) for a in args]
        rule = f"must be one of {', '.join(choices)}; the nearest is {nearest(str(value), choices)}"
        check(value in args, path, value, rule)
        return value
    if origin in (typing.Union, types.UnionType):
        return _alternative(args, value, path)
    if origin is tuple:
        return _sequence(args, value, path)
    if (origin or kind) is dict:
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return dict(value)
    return _scalar(kind, value, path)


def _scalar(kind: type, value: Any, path: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and float(value).is_integer():
        return int(value)
    check(type(value) is kind, path, value, f"expected {kind.__name__}")
    return value


def _sequence(kinds: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    check(isinstance(value, list | tuple), path, value, "expected a list")
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    check(len(value) == len(kinds), path, value, f"expected {len(kinds)} items")
    return tuple(_convert(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _alternative(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """One of a union: None for ``Optional``, a dataclass by its ``name``, else the first plain type that fits."""
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, Mapping):
        nested = [k for k in kinds if dataclasses.is_dataclass(k)]
        return build(nested[0] if len(nested) == 1 else _named(nested, value, path), value, path)
    plain = [k for k in kinds if k is not type(None) and not dataclasses.is_dataclass(k)]
    for kind in sorted(plain, key=lambda k: k is not type(value)):
        try:
            return _convert(kind, value, path)
        except ConfigError:
            continue
    expected = " or ".join("null" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds)
    raise ConfigError(f"{path}={value!r}: expected {expected}")


def _named(kinds: list[Any], tree: Mapping[str, Any], path: str) -> Any:
    """The dataclass whose ``name: Literal[...]`` holds the name that the tree gives."""
    by_name = {n: k for k in kinds for n in typing.get_args(typing.get_type_hints(k)["name"])}
    name = tree.get("name")
    rule = f"must be one of {', '.join(by_name)}; the nearest is {nearest(str(name), by_name)}"
    check(name in by_name, _join(path, "name"), name, rule)
    return by_name[str(name)]


def _increase(counts: list[int]) -> bool:
    """Whether each is more than the one before it, and the first more than 0."""
    return all(low < high for low, high in itertools.pairwise([0, *counts]))


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation: exactly one episode from each of ``episodes`` environments, greedy and sampled."""

    episodes: int
    every: int
    """Environment rows (T x B of a rollout) between evaluations."""
    absolute_factor: int
    """Episodes of the absolute metric, as a multiple of ``episodes``; 0 leaves it out."""

    def __post_init__(self) -> None:
        check_range("eval.episodes", self.episodes, 1)
        check_range("eval.every", self.every, 1)
        check_range("eval.absolute_factor", self.absolute_factor, 0)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints of a run, written after evaluations and on SIGTERM or Ctrl-C."""

    enabled: bool
    every: int
    """Evaluations between checkpoints."""
    keep: int
    """Checkpoints kept, not counting the best one's parameters."""
    verify: bool
    """Check the digest of what is restored."""
    exact: bool = True
    """Save the whole ``Runner``; without its environments and replay a run resumes as if it entered its world again."""

    def __post_init__(self) -> None:
        check_range("checkpoint.every", self.every, 1)
        check_range("checkpoint.keep", self.keep, 1)


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """How a run lies on the hardware. ``auto`` values are resolved before anything compiles."""

    name: Literal["auto", "cpu", "gpu", "tpu"]
    updates_per_chunk: int
    """Most updates in one compiled call; a chunk should last a few seconds at most."""
    compile_cache: str
    """Folder of the persistent compilation cache; empty switches it off."""

    def __post_init__(self) -> None:
        check_range("arch.updates_per_chunk", self.updates_per_chunk, 1)


@dataclasses.dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go besides the progress line and ``metrics.jsonl``, which are always written."""

    tensorboard: bool
    wandb: bool
    wandb_project: str
    wandb_mode: Literal["online", "offline", "disabled"]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """A part of a run: a world, and the share of the run's updates that learn in it."""

    env: str
    fraction: float


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Worlds to learn in one after the other, parameters being kept; without any, the run's own is the only one."""

    stages: tuple[StageConfig, ...] = ()
    reset_optimiser: bool = True
    """Whether the optimiser forgets its moments where a stage begins; schedules go on either way."""

    def __post_init__(self) -> None:
        shares = [stage.fraction for stage in self.stages]
        for i, share in enumerate(shares):
            check(0 < share <= 1, f"curriculum.stages[{i}].fraction", share, "must be greater than 0 and at most 1")
        rule = f"fractions must add up to 1, not {sum(shares):g}"
        check(not shares or math.isclose(sum(shares), 1, abs_tol=1e-6), "curriculum.stages", shares, rule)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. ``system`` and ``network`` have the classes that the system's module names."""

    system_name: str
    seed: int
    num_seeds: int
    total_timesteps: int
    num_envs: int
    rollout_length: int
    run_dir: str
    resume: str
    env: dict[str, Any]
    """``name`` and the options of that environment."""
    system: Any
    network: Any
    arch: ArchConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    logger: LoggerConfig
    init_from: str = ""
    """Folder of a run whose best parameters this one begins with."""
    curriculum: CurriculumConfig = CurriculumConfig()

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**32 - 1)
        for key in ("num_seeds", "total_timesteps", "num_envs", "rollout_length"):
            check_range(key, getattr(self, key), 1)
        rule = f"with num_seeds={self.num_seeds} the last seed is beyond 2**32 - 1"
        check(self.seed + self.num_seeds <= 2**32, "seed", self.seed, rule)
        name = self.env.get("name")
        check(isinstance(name, str) and name != "", "env.name", name, "must be a name; choose a world with env=<name>")
        rows = self.rows_per_update
        rule = f"must be at least the {rows} rows of one update (num_envs x rollout_length); raise it or lower num_envs"
        check(self.eval.every >= rows, "eval.every", self.eval.every, rule)
        self._check_curriculum()

    def _check_curriculum(self) -> None:
        name, last, every = self.env["name"], self.worlds[-1], self.eval.every
        rule = f"the last stage must be the world of the run, which is {name} (env={last} would make it that)"
        check(last == name, "curriculum.stages", last, rule)
        if not _increase(self._stage_evaluations(self.num_evaluations)):
            enough = math.ceil(1 / min(stage.fraction for stage in self.curriculum.stages))
            few = f"gives {self.num_evaluations} evaluations, and each of {len(self.worlds)} stages ends with one"
            most, rows = self.total_timesteps // enough, self.rows_per_update
            fix = f"make it at most {most}" if most >= rows else f"total_timesteps must be at least {enough * rows}"
            check(False, "eval.every", every, f"{few}; {fix}")

    @property
    def worlds(self) -> tuple[str, ...]:
        """Names of the worlds that the run learns in, stage by stage; evaluations are on the last."""
        return tuple(stage.env for stage in self.curriculum.stages) or (self.env["name"],)

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """For each stage the updates of the run by its end, which is that of an evaluation interval."""
        return tuple(n * self.updates_per_evaluation for n in self._stage_evaluations(self.num_evaluations))

    def _stage_evaluations(self, total: int) -> list[int]:
        shares = [stage.fraction for stage in self.curriculum.stages] or [1.0]
        return [math.floor(share * total + 0.5) for share in itertools.accumulate(shares)]

    def stage_at(self, update: int) -> int:
        """The stage, counted from 0, that learns after that many updates; the last one does not end."""
        return min(bisect.bisect_right(self.stage_ends, update), len(self.worlds) - 1)

    def in_world(self, name: str) -> RunConfig:
        """This run in another world alone, with the options of its own."""
        return dataclasses.replace(self, env={**self.env, "name": name}, curriculum=CurriculumConfig())

    @property
    def rows_per_update(self) -> int:
        """Environment rows that one update learns from."""
        return self.num_envs * self.rollout_length

    @property
    def num_evaluations(self) -> int:
        """Evaluations after the one of the untrained parameters."""
        return max(1, round(self.total_timesteps / self.eval.every))

    @property
    def updates_per_evaluation(self) -> int:
        """Updates from one evaluation to the next."""
        return max(1, math.ceil(self.total_timesteps / (self.num_evaluations * self.rows_per_update)))

    @property
    def updates_per_chunk(self) -> int:
        """The largest divisor of the evaluation interval within ``arch.updates_per_chunk``."""
        n = self.updates_per_evaluation
        return max(k for k in range(1, min(n, self.arch.updates_per_chunk) + 1) if n % k == 0)

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: ``total_timesteps`` rounded up to whole evaluation intervals."""
        return self.num_evaluations * self.updates_per_evaluation
