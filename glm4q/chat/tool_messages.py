"""Tool calls that run, and they and their results as messages that chat templates read.

GLM's own templates take a call as an assistant message whose metadata is the tool's name, and a
result as an observation. Other templates take OpenAI's tool_calls, and a message of the role tool.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from glm4q.chat.messages import Message
from glm4q.chat.offers.sections import NATIVE_TOOLS
from glm4q.tools.calls import NAME, BadCall, CallStyle, ToolCall
from glm4q.tools.functions import Toolbox
from glm4q.tools.python_calls import write_python_call

Consent = Callable[[ToolCall], bool]
"""Says whether a call may run."""


INTERRUPTED = "error: the user interrupted the call"


@dataclass(frozen=True)
class ToolResult:
    """What the model reads about one of its calls."""

    call: ToolCall | BadCall
    text: str


def run_call(
    call: ToolCall | BadCall, toolbox: Toolbox, consent: Consent, is_cancelled: Callable[[], bool]
) -> ToolResult:
    """Run a call that may run, and say what the model is to read about it."""
    if isinstance(call, BadCall):
        text = f"error: {call.reason}"
    elif is_cancelled():
        text = INTERRUPTED
    elif consent(call):
        text = toolbox.run(call)
    else:
        text = "error: the user does not allow this call"
    return ToolResult(call, text)


def call_style(template: str) -> CallStyle:
    """Return the way in which a template's source reads calls."""
    openai = "tool_calls" in template and "metadata" not in template
    return "tool_calls" if openai else "metadata"


def native_tools(template: str) -> frozenset[str]:
    """Return the kinds of GLM-4's own tools that a template's source describes."""
    return frozenset(kind for kind in NATIVE_TOOLS if f"== '{kind}'" in template)


def call_message(call: ToolCall | BadCall, style: CallStyle, call_id: str) -> Message:
    """Return the assistant's message that makes the call."""
    if isinstance(call, BadCall):
        name, newline, rest = call.text.partition("\n")
        if style != "tool_calls" and newline and NAME.fullmatch(name):
            return {"role": "assistant", "metadata": name, "content": rest}
        return {"role": "assistant", "content": call.text}
    if style != "tool_calls":
        content = call.text or write_arguments(call, style)
        return {"role": "assistant", "metadata": call.name, "content": content}
    function = {"name": call.name, "arguments": call.arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def write_arguments(call: ToolCall, style: CallStyle) -> str:
    """Return the arguments of a call that no model of this template wrote."""
    if style == "python":
        return write_python_call(call.arguments)
    return json.dumps(call.arguments, ensure_ascii=False)


def result_message(result: ToolResult, style: CallStyle, call_id: str) -> Message:
    """Return the message that tells the model what its call gave."""
    if style != "tool_calls":
        return {"role": "observation", "content": result.text}
    message = {"role": "tool", "content": result.text, "tool_call_id": call_id}
    return message | {"name": result.call.name} if isinstance(result.call, ToolCall) else message
