"""Options: what a dataclass says about itself, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tian.errors import ConfigError, InvalidInput, PluginError
from tian.plugins.options import build_options, describe_options


@dataclass
class Optim:
    lr: float = 1e-3  # peak learning rate
    betas: tuple[float, float] = (0.9, 0.95)  # decay rates

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InvalidInput(f"lr must be > 0, got {self.lr}")


@dataclass
class Base:
    seed: int = 0  # of everything random


@dataclass
class Options(Base):
    """Text with a seed = 3  # not a comment."""

    name: str = field(kw_only=True)  # required
    mode: Literal["fast", "exact"] = "exact"  # how
    optim: Optim = field(default_factory=Optim)
    extra: dict[str, Any] = field(default_factory=dict, metadata={"role": "kv_policy"})  # free form
    limit: int | None = None  # tokens; null: none
    flag: bool = True
    path: Path | None = None
    parts: list[int] = field(default_factory=list)
    nested: list[Optim] = field(default_factory=list)
    hidden: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        limit = 3  # not the field's documentation
        flag = limit  # nor this
        self.hidden = flag


def build(**values):
    return build_options(Options, {"name": "x", **values}, where=lambda key: f"file.yaml:{key}", prefix="kv.")


def test_options_are_described_in_order_with_type_default_and_comment():
    docs = {d.name: d for d in describe_options(Options)}
    assert list(docs)[:3] == ["seed", "name", "mode"]
    assert "hidden" not in docs
    assert (docs["seed"].type, docs["seed"].default, docs["seed"].doc) == ("int", 0, "of everything random")
    assert (docs["name"].required, docs["name"].default) == (True, None)
    assert docs["limit"].type == "int | None"
    assert docs["limit"].doc == "tokens; null: none"
    assert docs["extra"].doc == "free form"
    assert docs["flag"].doc == ""
    assert docs["optim"].default == {"lr": 1e-3, "betas": (0.9, 0.95)}
    assert describe_options(None) == []


def test_values_of_the_right_type_are_taken_and_nothing_is_guessed():
    made = build(optim={"lr": 1, "betas": [0, 1]}, parts=(1, 2), path="a/b", limit=3, mode="fast", nested=[{"lr": 2.0}])
    assert made.optim == Optim(lr=1.0, betas=(0.0, 1.0))
    assert isinstance(made.optim.lr, float)
    assert made.parts == [1, 2]
    assert made.path == Path("a/b")
    assert made.nested == [Optim(lr=2.0)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": True}, "'kv.seed' must be int, got True (bool)"),
        ({"seed": 1.0}, "'kv.seed' must be int, got 1.0 (float)"),
        ({"seed": None}, "'kv.seed' must be int, got None (NoneType)"),
        ({"limit": "many"}, "'kv.limit' must be int | None"),
        ({"name": 3}, "'kv.name' must be str"),
        ({"mode": "slow"}, "'kv.mode' must be Literal['fast', 'exact']"),
        ({"flag": 1}, "'kv.flag' must be bool"),
        ({"parts": "12"}, "'kv.parts' must be list[int]"),
        ({"parts": [1, "2"]}, "'kv.parts' must be list[int]"),
        ({"optim": 3}, "'kv.optim' must be Optim"),
        ({"optim": {"lr": "high"}}, "'kv.optim.lr' must be float"),
        ({"optim": {"betas": [0.9]}}, "'kv.optim.betas' must be tuple[float, float]"),
        ({"extra": [1]}, "'kv.extra' must be dict[str, Any]"),
    ],
)
def test_a_wrong_type_names_the_key_the_type_and_the_value(values, expected):
    with pytest.raises(ConfigError) as caught:
        build(**values)
    assert expected in caught.value.message


def test_the_origin_of_the_key_is_where():
    with pytest.raises(ConfigError) as caught:
        build(optim={"lrr": 1})
    assert caught.value.where == "file.yaml:kv.optim.lrr"
    assert caught.value.hint == "did you mean 'lr'?"
    with pytest.raises(ConfigError, match=r"kv\.nested\.0\.lrr"):
        build(nested=[{"lrr": 1}])


def test_a_missing_option_says_how_to_set_it():
    with pytest.raises(ConfigError) as caught:
        build_options(Options, {})
    assert caught.value.hint == "set name=..."


def test_a_field_the_constructor_does_not_take_is_unknown():
    with pytest.raises(ConfigError, match=r"kv\.hidden"):
        build(hidden=3)


def test_a_refused_value_points_at_the_option_it_names():
    with pytest.raises(InvalidInput, match="lr must be > 0, got -1") as caught:
        build(optim={"betas": [0.0, 0.1], "lr": -1})
    assert caught.value.where == "file.yaml:kv.optim.lr"


def test_a_type_hidden_from_run_time_is_explained():
    @dataclass
    class Hidden:
        x: "Nowhere" = None  # noqa: F821, UP037

    with pytest.raises(PluginError) as caught:
        build_options(Hidden, {})
    assert "TYPE_CHECKING" in caught.value.hint


def test_a_field_named_after_a_keyword_is_written_without_its_underscore():
    @dataclass
    class FromOptions:
        from_: str = "here"  # where to begin
        plain_: int = 1

    made = build_options(FromOptions, {"from": "there"})
    assert made.from_ == "there"
    assert [o.name for o in describe_options(FromOptions)] == ["from", "plain_"]
    assert describe_options(FromOptions)[0].doc == "where to begin"
    with pytest.raises(ConfigError, match="no option 'from_'"):
        build_options(FromOptions, {"from_": "there"})


@dataclass
class Inner:
    a: int = 1
    b: int = 2


@dataclass
class Middle:
    inner: Inner = field(default_factory=lambda: Inner(a=10, b=20))
    c: int = 3


@dataclass
class Outer:
    middle: Middle = field(default_factory=lambda: Middle(inner=Inner(a=100, b=200), c=300))


def test_a_part_of_a_nested_option_leaves_the_rest_at_the_fields_own_default():
    made = build_options(Outer, {"middle": {"inner": {"b": 7}}})
    assert made.middle == Middle(inner=Inner(a=100, b=7), c=300)
    assert build_options(Middle, {"inner": {"a": 5}}).inner == Inner(a=5, b=20)
    with pytest.raises(ConfigError, match=r"middle\.inner\.d"):
        build_options(Outer, {"middle": {"inner": {"d": 7}}})
