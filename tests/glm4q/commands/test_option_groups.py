"""A dataclass in a command's signature stands for its fields, each an option of its own."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from glm4q.commands.process.option_groups import spread_groups


@dataclass
class Size:
    width: Annotated[int, typer.Option(help="Columns.")] = 80
    height: Annotated[int, typer.Option(help="Lines.")] = 24


def draw(name: str, *, size: Size, loud: bool = False) -> str:
    return f"{name} {size.width}x{size.height}{'!' if loud else ''}"


def test_fields_stand_where_their_group_stood() -> None:
    assert [*inspect.signature(spread_groups(draw)).parameters] == [
        "name",
        "width",
        "height",
        "loud",
    ]


def test_a_command_gets_its_groups(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(lambda: None)
    app.command("draw")(spread_groups(draw))
    words = ["draw", "box", "--height", "5", "--loud"]
    assert app(words, standalone_mode=False) == "box 80x5!"


def test_without_a_group_a_command_is_as_it_was() -> None:
    assert spread_groups(lambda: 3)() == 3
