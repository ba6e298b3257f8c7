"""ChatGLM3's calls: the tool's name, and a Python call with the arguments in a fence of code.

    get_weather
    ```python
    tool_call(location="beijing", unit="celsius")
    ```
https://github.com/THUDM/ChatGLM3/blob/main/PROMPT_en.md
"""

import ast
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from glm4q.tools.calls import BadCall, ToolCall, missing_tool
from glm4q.tools.scanner import BracketScanner

FENCE, CALL = "```", "tool_call"
OPEN_FENCE = re.compile(r"```\w*\s*", re.ASCII)
BEGIN = re.compile(OPEN_FENCE.pattern + r"tool_call\s*\(", re.ASCII)
LITERALS = {"true": True, "false": False, "null": None}
"""JSON's own words: a schema's grammar writes them, and so do models that mix both languages."""


class PythonSyntax:
    """Reads one call while it arrives; glm4q.tools.calls.JsonSyntax is the other way."""

    def __init__(self) -> None:
        self._scanner = BracketScanner("\"'")
        self._closed: int | None = None
        """The place behind the parentheses."""

    def begins(self, text: str) -> bool | None:
        """Return whether a text begins with arguments; None while it is too short to tell."""
        if BEGIN.match(text):
            return True
        if FENCE.startswith(text):
            return None
        opened = OPEN_FENCE.match(text)
        unfinished = opened and f"{CALL}(".startswith("".join(text[opened.end() :].split()))
        return None if unfinished else False

    def end(self, text: str, *, last: bool = False) -> int | None:
        """Return the place behind the call and its fence; None while it is not complete.

        last: nothing follows.
        """
        if self._closed is None:
            self._closed = self._scanner.end(text)
            if self._closed is None:
                return None
        rest = text[self._closed :]
        fence = rest.lstrip()
        if fence.startswith(FENCE):
            return self._closed + rest.index(FENCE) + len(FENCE)
        return self._closed if last or not FENCE.startswith(fence) else None

    def read(self, name: str, text: str, tools: Collection[str]) -> ToolCall | BadCall:
        """Return the call of a name and these arguments."""
        return read_python_call(name, text, tools)


def read_python_call(name: str, text: str, tools: Collection[str]) -> ToolCall | BadCall:
    """Return the call of a name and a Python call. Nothing of it is run: values are literals."""
    if missing := missing_tool(name, text, tools):
        return missing
    code = OPEN_FENCE.sub("", text, count=1).strip().removesuffix(FENCE)
    try:
        arguments = _arguments(code)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        problem = " ".join(str(error).split())
        return BadCall(f"{name}\n{text}", f"the call of {name} cannot be read: {problem}")
    return ToolCall(name, arguments, text)


def write_python_call(arguments: Mapping[str, Any]) -> str:
    """Write a call with these arguments, in its fence, for `read_python_call`."""
    pairs = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{FENCE}python\n{CALL}({pairs})\n{FENCE}"


def _arguments(code: str) -> dict[str, Any]:
    call = ast.parse(code.strip(), mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError(f"it is not {CALL}(name=value, ...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("each argument needs its name: name=value")
    arguments = {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
    json.dumps(arguments, allow_nan=False)  # refuses sets, bytes and numbers that overflow
    return arguments


def _value(node: ast.expr) -> Any:
    return ast.literal_eval(_Literals().visit(node))


class _Literals(ast.NodeTransformer):
    """Replaces the words of JSON by Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in LITERALS:
            raise ValueError(f"{node.id} is no value; write text in quotation marks")
        return ast.copy_location(ast.Constant(LITERALS[node.id]), node)
