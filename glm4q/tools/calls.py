"""Tool calls as a model writes them, and what is wrong with those that cannot be read.

GLM-4 writes a call as the tool's name on a line of its own and a JSON object with the arguments.
Fine-tuned models of the family also write one object, {"name": ..., "arguments": {...}}. ChatGLM3
writes a Python call (python_calls.py). GLM-4's own tools take the rest of the message as it is.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from glm4q.tools.scanner import BracketScanner

CallStyle = Literal["metadata", "tool_calls", "python"]
"""How a template writes calls: GLM-4's line with a name, OpenAI's tool_calls, or ChatGLM3's way."""

RAW_ARGUMENT = "code"
"""The one argument of GLM-4's own tools: the text of the call."""

NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)
"""A tool's name, as OpenAI's API allows it."""

OBJECT_WITH_NAME = re.compile(r'\{\s*"name"\s*:')
"""The beginning of a call that is one object."""

ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass(frozen=True)
class ToolCall:
    """A call that can be run."""

    name: str
    arguments: dict[str, Any]
    text: str = field(default="", compare=False)
    """The arguments as the model wrote them: a prompt that repeats them is in the cache."""


@dataclass(frozen=True)
class BadCall:
    """Text that was meant as a call and cannot be read. The reason is written for the model."""

    text: str
    reason: str


class JsonSyntax:
    """Reads the object of one call while it arrives."""

    def __init__(self) -> None:
        self._scanner = BracketScanner()

    def begins(self, text: str) -> bool | None:
        """Return whether a text begins with arguments; None while it is too short to tell."""
        return text.startswith("{") if text else None

    def end(self, text: str, *, last: bool = False) -> int | None:
        """Find the place behind the object; None while it is not whole. last: nothing follows."""
        return self._scanner.end(text)

    def read(self, name: str, text: str, tools: Collection[str]) -> "ToolCall | BadCall":
        """Return the call of a name and these arguments."""
        return read_named_call(name, text, tools)


def read_named_call(name: str, text: str, tools: Collection[str]) -> ToolCall | BadCall:
    """Return the call of a name and an object of arguments."""
    if missing := missing_tool(name, text, tools):
        return missing
    arguments = _read_object(text)
    if isinstance(arguments, str):
        return BadCall(
            f"{name}\n{text}", f"the arguments of {name} are not valid JSON: {arguments}"
        )
    return ToolCall(name, arguments, text)


def missing_tool(name: str, text: str, tools: Collection[str]) -> BadCall | None:
    """Return what the model reads where it calls a tool that was not offered."""
    if name in tools:
        return None
    known = ", ".join(sorted(tools))
    return BadCall(f"{name}\n{text}", f"there is no tool {name!r}; the tools are {known}")


def read_object_call(text: str, tools: Collection[str]) -> ToolCall | BadCall | None:
    """Return the call that one object spells; None where the object is no call but an answer."""
    whole = _read_object(text)
    if isinstance(whole, str):
        return BadCall(text, f"the call is not valid JSON: {whole}")
    name = whole.get("name")
    key = next((key for key in ARGUMENT_KEYS if key in whole), None)
    if not isinstance(name, str) or key is None:
        return None
    if name != _first_name(text):
        return BadCall(text, "the call has two names")
    arguments = whole[key]
    if isinstance(arguments, str):
        return read_named_call(name, arguments, tools)
    if not isinstance(arguments, dict):
        return BadCall(text, f"the arguments of {name} must be an object")
    return read_named_call(name, json.dumps(arguments, ensure_ascii=False), tools)


def _first_name(text: str) -> object:
    """Return the name that `text` begins with: JSON's readers take the last of two."""
    begun = OBJECT_WITH_NAME.match(text)
    if begun is None:
        return None
    rest = text[begun.end() :]
    return json.JSONDecoder(strict=False).raw_decode(rest.lstrip())[0]


def _read_object(text: str) -> dict[str, Any] | str:
    """Return the object, or what is wrong with it. A line break inside a string is let pass."""
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return " ".join(str(error).split())
    return value if isinstance(value, dict) else "it is not an object"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
