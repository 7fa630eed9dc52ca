"""Plain data becomes the frozen classes, or an error of one line."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest

from jmarl.config import (
    ConfigError,
    build,
    check_positive,
    check_range,
    key_paths,
    nearest,
    read_value,
    suggest,
)
from jmarl.config.parsing import flatten


@dataclasses.dataclass(frozen=True)
class Flat:
    name: Literal["flat"]
    width: int


@dataclasses.dataclass(frozen=True)
class Deep:
    name: Literal["deep", "deeper"]
    layers: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float
    mode: Literal["a", "bb"]


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int
    flag: bool
    rank: int | None
    pair: tuple[int, float]
    inner: Inner
    net: Flat | Deep
    options: dict[str, Any]
    label: str = "none"


TREE = {
    "count": 3,
    "flag": True,
    "rank": None,
    "pair": [1, 2],
    "inner": {"rate": 1, "mode": "a"},
    "net": {"name": "deeper", "layers": [4, 5]},
    "options": {"x": 1},
}


def changed(**values: Any) -> dict[str, Any]:
    return {**TREE, **values}


def test_plain_data_becomes_the_nested_classes() -> None:
    made = build(Outer, TREE)
    assert made == Outer(
        3, True, None, (1, 2.0), Inner(1.0, "a"), Deep("deeper", (4, 5)), {"x": 1}
    )
    assert isinstance(made.inner.rate, float)
    assert isinstance(made.pair[1], float)


def test_build_inverts_asdict() -> None:
    made = build(Outer, TREE)
    assert build(Outer, dataclasses.asdict(made)) == made


def test_a_float_without_fraction_is_an_int() -> None:
    assert build(Outer, changed(count=1e6)).count == 1_000_000


def test_the_name_chooses_among_alternatives() -> None:
    assert build(Outer, changed(net={"name": "flat", "width": 2})).net == Flat(
        "flat", 2
    )


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (changed(cuont=3), "cuont=3: unknown key; did you mean count?"),
        (changed(rate=3), "rate=3: unknown key; did you mean inner.rate?"),
        (
            changed(inner={"rat": 1, "mode": "a"}),
            "inner.rat=1: unknown key; did you mean inner.rate?",
        ),
        (changed(inner={"rate": 1}), "inner.mode: missing; give it a value"),
        (changed(inner=3), "inner=3: expected a group of keys"),
        (
            changed(inner={"rate": 1, "mode": "b"}),
            "inner.mode='b': must be one of a, bb; did you mean bb?",
        ),
        (
            changed(inner={"rate": 1, "mode": "zzz"}),
            "inner.mode='zzz': must be one of a, bb",
        ),
        (changed(count="a"), "count='a': expected int"),
        (changed(count=1.5), "count=1.5: expected int"),
        (changed(count=True), "count=True: expected int"),
        (changed(count=None), "count=None: expected int"),
        (changed(count=float("nan")), "count=nan: expected int"),
        (changed(count=float("inf")), "count=inf: expected int"),
        (changed(count="3"), "count='3': expected int"),
        (changed(flag=1), "flag=1: expected bool"),
        (changed(flag="yes"), "flag='yes': expected bool"),
        (changed(rank="a"), "rank='a': expected int or null"),
        (changed(pair=[1]), "pair=[1]: expected 2 items"),
        (changed(pair=1), "pair=1: expected a list"),
        (changed(pair=[1, "x"]), "pair[1]='x': expected float"),
        (changed(options=1), "options=1: expected a group of keys"),
        (
            changed(net={"name": "dep"}),
            "net.name='dep': must be one of flat, deep, deeper; did you mean deep?",
        ),
        (
            changed(net={"name": "flat", "layers": [1]}),
            "net.layers=[1]: unknown key with net.name=flat; --help lists the keys",
        ),
        (changed(net="flat"), "net='flat': expected a group of keys"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    tree: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, tree)
    assert str(caught.value) == message


def test_key_paths_are_the_leaves_of_all_alternatives() -> None:
    assert key_paths(Outer)[4:] == [
        "inner.rate",
        "inner.mode",
        "net.name",
        "net.width",
        "net.name",
        "net.layers",
        "options",
        "label",
    ]


def test_types_of_fields_can_be_replaced() -> None:
    types = {"net": Inner}
    net = {"rate": 2, "mode": "bb"}
    assert build(Outer, changed(net=net), field_types=types).net == Inner(2.0, "bb")
    assert "net.rate" in key_paths(Outer, field_types=types)
    with pytest.raises(ConfigError, match=r"did you mean net\.rate\?"):
        build(Outer, changed(net={**net, "rat": 1}), field_types=types)


def test_flatten_lists_leaves_by_dotted_key() -> None:
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": None}}}) == {
        "a": 1,
        "b.c": [2],
        "b.d.e": None,
    }


KEYS = [
    "env.name",
    "seed",
    "num_seeds",
    "total_timesteps",
    "num_envs",
    "eval.every",
    "eval.episodes",
    "checkpoint.keep",
    "curriculum.stages.fraction",
    "system.lr",
    "system.gamma",
    "system.gae_lambda",
    "system.batch_size",
    "system.target_rate",
    "network.embed_dim",
    "network.head",
    "network.bi_mode",
]
NEAR = {
    "lr": "system.lr",
    "LR": "system.lr",
    "lrr": "system.lr",
    "system.lrr": "system.lr",
    "sytem.lr": "system.lr",
    "gama": "system.gamma",
    "sede": "seed",
    "seeds": "seed",
    "num_env": "num_envs",
    "numenvs": "num_envs",
    "num-envs": "num_envs",
    "eval_every": "eval.every",
    "episode": "eval.episodes",
    "timesteps": "total_timesteps",
    "batch": "system.batch_size",
    "network.embed": "network.embed_dim",
}
FAR = """
    foo bar x rank hello model learning_rate hidden_size tau device discount epsilon
    system.ab system.xyz network.foo eval.foo 3 ü
""".split()


@pytest.mark.parametrize(("word", "name"), NEAR.items())
def test_a_near_miss_is_suggested(word: str, name: str) -> None:
    assert nearest(word, KEYS) == [name]
    assert suggest(word, KEYS, "none") == f"did you mean {name}?"


@pytest.mark.parametrize("word", FAR)
def test_nothing_is_suggested_for_a_far_word(word: str) -> None:
    assert nearest(word, KEYS) == []
    assert suggest(word, KEYS, "none") == "none"


def test_several_near_names_are_listed_from_the_nearest() -> None:
    names = ["seed", "system.minibatches", "minibatch"]
    assert nearest("minibatches", names, most=3) == names[1:]
    assert suggest("minibatches", names, "", 2).endswith("minibatches or minibatch?")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("3", 3),
        ("1e6", 1e6),
        ("2e-3", 0.002),
        ("-1.5E+2", -150.0),
        ("e3", "e3"),
        ("true", True),
        ("[1e2, x]", [100.0, "x"]),
    ],
)
def test_a_value_is_read_as_a_user_means_it(text: str, value: Any) -> None:
    assert read_value("k", text) == value
    assert type(read_value("k", text)) is type(value)


@pytest.mark.parametrize("text", ["[", "*x", "2026-13-45"])
def test_a_value_that_is_no_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_value("k", text)
    assert str(caught.value) == f"k={text}: cannot be read; expected YAML"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_range_holds_both_its_ends(value: float) -> None:
    check_range("k", value, 0, 1)


@pytest.mark.parametrize(
    ("value", "low", "high", "rule"),
    [
        (1.5, 0, 1, "must lie in [0, 1]"),
        (-1, 0, float("inf"), "must be at least 0"),
        (2, -float("inf"), 1, "must be at most 1"),
        (float("nan"), 0, 1, "must lie in [0, 1]"),
        (float("nan"), 0, float("inf"), "must be at least 0"),
        (float("inf"), 0, float("inf"), "must be at least 0 and finite"),
        (0, 1, 2**32 - 1, "must be at least 1"),
        (2**32, 1, 2**32 - 1, "must be at most 4294967295"),
    ],
)
def test_a_value_out_of_range_names_the_range(
    value: float, low: float, high: float, rule: str
) -> None:
    with pytest.raises(ConfigError, match=r"^system\.k=.*: ") as caught:
        check_range("system.k", value, low, high)
    assert str(caught.value).endswith(rule)


def test_an_integer_without_a_float_is_an_error_and_no_overflow() -> None:
    with pytest.raises(ConfigError, match="must be greater than 0 and finite"):
        check_positive("lr", build(float, 10**400, "lr"))
    assert build(int, 10**400, "count") == 10**400


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_positive_is_strict_and_finite(value: float) -> None:
    with pytest.raises(ConfigError, match="must be greater than 0"):
        check_positive("lr", value)
