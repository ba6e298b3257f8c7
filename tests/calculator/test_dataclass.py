"""calculator's frozen classes behave as those of the standard library."""

import dataclasses
from dataclasses import field
from functools import cached_property

import pytest

from calculator.dataclass import dataclass


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0

    @cached_property
    def distance(self) -> int:
        return abs(self.x) + abs(self.y)


@dataclass(frozen=True)
class Named(Point):
    name: str = "origin"

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Single:
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Usual:
    x: int
    y: int = 0


def test_equal_fields_are_equal_and_hash_alike() -> None:
    assert Point(1) == Point(1, 0)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert Point(1) != Point(2)
    assert Single(("a",)) == Single(("a",))
    assert len({Point(1), Point(1), Single(), Single()}) == 2


def test_another_class_is_not_equal() -> None:
    others: list[object] = [Named(1), Usual(1), (1, 0)]
    assert Point(1) not in others


def test_a_field_is_set_once() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point.x == 1


def test_the_librarys_functions_take_it() -> None:
    point = Point(1)
    assert point.distance == 1  # a cached property is neither a field nor compared
    assert dataclasses.replace(point, y=2) == Point(1, 2)
    assert dataclasses.replace(point, y=2).distance == 3
    assert dataclasses.asdict(point) == {"x": 1, "y": 0}
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "name"]
    assert point == Point(1)


def test_it_is_shown_as_the_librarys_are() -> None:
    assert repr(Point(1)) == repr(Usual(1)).replace("Usual", "Point")
    assert repr(Named(1)) == "origin"


def test_fields_by_keyword_only_are_refused() -> None:
    """They are not among the names that the shared methods read."""
    with pytest.raises(TypeError, match="by keyword only"):

        @dataclass(frozen=True)
        class Named:
            name: str = field(kw_only=True)
