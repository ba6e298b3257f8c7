"""Tool calls as a model writes them, and what is wrong with those that cannot be read.

GLM-4 writes a call as the tool's name on a line of its own and a JSON object with the arguments.
Fine-tuned models of the family also write one object, {"name": ..., "arguments": {...}}.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
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


class ObjectScanner:
    """Finds the end of a JSON object in text that arrives in pieces."""

    def __init__(self) -> None:
        self._at = self._depth = 0
        self._in_string = self._escaped = False

    def end(self, text: str) -> int | None:
        """The place behind the object that `text` begins with; None while it is not complete.

        Each call gets the same text, longer than before: no character is looked at twice.
        """
        while self._at < len(text):
            character = text[self._at]
            self._at += 1
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return self._at
        return None


def read_named_call(name: str, text: str, tools: Collection[str]) -> ToolCall | BadCall:
    """The call of a name and an object of arguments."""
    if name not in tools:
        known = ", ".join(sorted(tools))
        return BadCall(f"{name}\n{text}", f"there is no tool {name!r}; the tools are {known}")
    arguments = _read_object(text)
    if isinstance(arguments, str):
        return BadCall(
            f"{name}\n{text}", f"the arguments of {name} are not valid JSON: {arguments}"
        )
    return ToolCall(name, arguments, text)


def read_object_call(text: str, tools: Collection[str]) -> ToolCall | BadCall | None:
    """The call that one object spells; None where the object is no call but an answer."""
    whole = _read_object(text)
    if isinstance(whole, str):
        return BadCall(text, f"the call is not valid JSON: {whole}")
    name = whole.get("name")
    key = next((key for key in ARGUMENT_KEYS if key in whole), None)
    if not isinstance(name, str) or key is None:
        return None
    arguments = whole[key]
    if isinstance(arguments, str):
        return read_named_call(name, arguments, tools)
    if not isinstance(arguments, dict):
        return BadCall(text, f"the arguments of {name} must be an object")
    return read_named_call(name, json.dumps(arguments, ensure_ascii=False), tools)


def _read_object(text: str) -> dict[str, Any] | str:
    """The object, or what is wrong with it. A line break inside a string is let pass."""
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return " ".join(str(error).split())
    return value if isinstance(value, dict) else "it is not an object"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
