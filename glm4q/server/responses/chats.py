"""Requests for a response as chats: pure functions."""

from glm4q.server.request.bodies import Json, checked, supported_fields
from glm4q.server.request.requests import ChatRequest
from glm4q.server.responses.requests import (
    AnyItem,
    CallItem,
    CallOutputItem,
    MessageItem,
    ResponsesRequest,
    TextPart,
    Tool,
    ToolChoice,
)

SAME = ("model", "temperature", "top_p", "parallel_tool_calls")
"""Fields that have the same name and meaning in a chat."""


def chat_of(request: ResponsesRequest) -> ChatRequest:
    """Say a request for a response as a chat. Raises ApiError."""
    fields: Json = {name: getattr(request, name) for name in SAME}
    fields |= {
        "messages": _messages(request),
        "max_tokens": request.max_output_tokens,
        "tools": [_tool(tool) for tool in request.tools or []],
        "tool_choice": _tool_choice(request.tool_choice),
    }
    if request.text is not None and request.text.format is not None:
        fields["response_format"] = _response_format(request.text.format)
    return checked(ChatRequest, supported_fields(ChatRequest, fields))


def _messages(request: ResponsesRequest) -> list[Json]:
    """Calls that follow a message of the assistant, or one another, belong to one message."""
    messages: list[Json] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    for item in request.input:
        if isinstance(item, CallItem):
            _add_call(messages, item)
        elif (message := _message(item)) is not None:
            messages.append(message)
    return messages


def _message(item: AnyItem) -> Json | None:
    if isinstance(item, MessageItem):
        return {"role": item.role, "content": _joined(item.content)}
    if isinstance(item, CallOutputItem):
        return {"role": "tool", "tool_call_id": item.call_id, "content": _joined(item.output)}
    return None  # earlier thoughts


def _add_call(messages: list[Json], item: CallItem) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _joined(parts: list[TextPart]) -> str:
    return "".join(part.text for part in parts)


def _tool(tool: Tool) -> Json:
    fields = {"name", "description", "parameters", "strict"}
    function = {
        name: value for name in sorted(fields) if (value := getattr(tool, name)) is not None
    }
    return {"type": "function", "function": function}


def _tool_choice(choice: str | ToolChoice | None) -> str | Json | None:
    if isinstance(choice, ToolChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _response_format(asked: Json) -> Json:
    """A schema lies one level deeper in a chat."""
    if asked.get("type") != "json_schema":
        return asked
    inner = {name: value for name, value in asked.items() if name != "type"}
    return {"type": "json_schema", "json_schema": inner}
