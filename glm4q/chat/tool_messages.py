"""Tool calls and their results as messages, in the two ways that chat templates read them.

GLM's own templates take a call as an assistant message whose metadata is the tool's name, and a
result as an observation. Other templates take OpenAI's tool_calls, and a message of the role tool.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from glm4q.chat.messages import Message
from glm4q.tools.calls import NAME, BadCall, ToolCall

CallStyle = Literal["metadata", "tool_calls"]

Consent = Callable[[ToolCall], bool]
"""Says whether a call may run."""


@dataclass(frozen=True)
class ToolResult:
    """What the model reads about one of its calls."""

    call: ToolCall | BadCall
    text: str


def call_style(template: str) -> CallStyle:
    """The way in which a template's source reads calls."""
    openai = "tool_calls" in template and "metadata" not in template
    return "tool_calls" if openai else "metadata"


def call_message(call: ToolCall | BadCall, style: CallStyle, call_id: str) -> Message:
    """The assistant's message that makes the call."""
    if isinstance(call, BadCall):
        name, newline, rest = call.text.partition("\n")
        if style == "metadata" and newline and NAME.fullmatch(name):
            return {"role": "assistant", "metadata": name, "content": rest}
        return {"role": "assistant", "content": call.text}
    if style == "metadata":
        content = call.text or json.dumps(call.arguments, ensure_ascii=False)
        return {"role": "assistant", "metadata": call.name, "content": content}
    function = {"name": call.name, "arguments": call.arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result_message(result: ToolResult, style: CallStyle, call_id: str) -> Message:
    """The message that tells the model what its call gave."""
    if style == "metadata":
        return {"role": "observation", "content": result.text}
    message = {"role": "tool", "content": result.text, "tool_call_id": call_id}
    return message | {"name": result.call.name} if isinstance(result.call, ToolCall) else message
