"""Functions become offers that models read, and calls are checked before they run."""

import time
from pathlib import Path
from typing import Literal

import pytest

from calculator.errors import OptionError
from glm4q.tools.calls import ToolCall
from glm4q.tools.functions import MOST_CHARACTERS, Tool, Toolbox, load_tools

FILE = '''
"""Tools of a test."""
import math

def area(width: float, height: float = 2.0) -> float:
    """Compute the area of a rectangle."""
    return width * height

def _helper() -> None:
    """Not offered."""
'''


def convert(amount: float, unit: Literal["km", "mile"]) -> dict[str, object]:
    """Convert a length."""
    if amount < 0:
        raise ValueError("a length is not negative")
    return {"amount": amount * 1.609, "unit": unit}


def tools_of(text: str, tmp_path: Path) -> list[Tool]:
    file = tmp_path / "tools.py"
    file.write_text(text)
    return load_tools(file)


def test_a_file_offers_its_public_functions(tmp_path: Path) -> None:
    toolbox = Toolbox(tools_of(FILE, tmp_path))
    (offer,) = toolbox.offers
    assert offer["type"] == "function"
    assert offer["function"]["description"] == "Compute the area of a rectangle."
    parameters = offer["function"]["parameters"]
    assert parameters["required"] == ["width"]
    assert parameters["properties"]["height"] == {
        "default": 2.0,
        "title": "Height",
        "type": "number",
    }
    assert toolbox.run(ToolCall("area", {"width": 3})) == "6.0"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"amount": "2", "unit": "km"}, '{"amount": 3.218, "unit": "km"}'),
        ({"amount": 1, "unit": "parsec"}, "error: unit: Input should be 'km' or 'mile'"),
        ({"unit": "km"}, "error: amount: Field required"),
        ({"amount": 1, "unit": "km", "x": 1}, "error: x: Extra inputs are not permitted"),
        ({"amount": -1, "unit": "km"}, "error: ValueError: a length is not negative"),
    ],
)
def test_what_the_model_reads_of_a_call(arguments: dict[str, object], expected: str) -> None:
    assert Tool.from_function(convert).run(arguments) == expected


def test_a_call_ends_in_time() -> None:
    def wait(seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    tool = Tool.from_function(wait)
    assert tool.run({"seconds": 0.5}, 0.05) == "error: wait took more than 0.05 seconds"


def test_a_long_result_is_cut() -> None:
    def repeat(count: int) -> str:
        """Repeat a letter."""
        return "x" * count

    result = Tool.from_function(repeat).run({"count": MOST_CHARACTERS + 1234})
    assert result.endswith("x\n[1,234 characters more are left out]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "it defines no public function"),
        ("def f(x: int): pass", "the tool f has no docstring"),
        ("def f(x):\n    '''F.'''", "the tool f has no type for its argument x"),
        ("def f(*x: int):\n    '''F.'''", "the tool f takes *x"),
        ("def f(", "SyntaxError"),
        ("import nowhere", "No module named 'nowhere'"),
    ],
)
def test_what_is_no_tool_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        tools_of(text, tmp_path)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nowhere\.py: there is no such file"):
        load_tools(tmp_path / "nowhere.py")
