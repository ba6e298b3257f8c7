"""Anthropic's requests as chats: pure functions."""

import json
from collections.abc import Iterable, Sequence

from glm4q.server.anthropic.requests import (
    CountRequest,
    Message,
    MessagesRequest,
    TextBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from glm4q.server.errors import ApiError, unsupported
from glm4q.server.request.billing_header import without_billing_header
from glm4q.server.request.bodies import Json, checked, supported_fields
from glm4q.server.request.requests import (
    CalledFunction,
    ChatMessage,
    ChatRequest,
    EarlierCall,
)

SAME = ("max_tokens", "temperature", "top_p", "top_k")
"""Fields that have the same name and meaning in a chat."""


def chat_of(request: CountRequest) -> ChatRequest:
    """Say a request for a message, or for the count of its tokens, as a chat. Raises ApiError."""
    if request.messages[-1].role == "assistant":
        raise unsupported(
            "messages", "the last message is the assistant's, and no answer can be continued here"
        )
    messages = _system(request.system)
    for message in request.messages:
        messages += _messages(message)
    fields: Json = {
        "model": request.model,
        "messages": messages,
        "tools": [_tool(tool) for tool in request.tools or []],
        "tool_choice": _tool_choice(request.tool_choice),
    }
    if isinstance(request, MessagesRequest):
        fields |= {name: getattr(request, name) for name in SAME}
        fields["stop"] = request.stop_sequences
    choice = request.tool_choice
    if choice is not None and choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    if request.output_config is not None and request.output_config.format is not None:
        schema = {"name": "answer", "schema": request.output_config.format.schema_}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return checked(ChatRequest, supported_fields(ChatRequest, fields))


def _system(blocks: Sequence[TextBlock]) -> list[ChatMessage]:
    """Join the blocks. That of the billing header changes each time, and is left out."""
    texts = [text for block in blocks if (text := without_billing_header(block.text))]
    return [ChatMessage(role="system", content="\n\n".join(texts))] if texts else []


def _messages(message: Message) -> list[ChatMessage]:
    """Results of tools are messages of their own in a chat, and stay in their order."""
    if message.role == "assistant":
        return [_said(message)]
    messages: list[ChatMessage] = []
    texts: list[str] = []
    for number, block in enumerate(message.content):
        if isinstance(block, ToolResultBlock) and message.role == "user":
            messages += _texts(message, texts)
            texts = []
            messages.append(_result(block))
        elif isinstance(block, TextBlock):
            texts.append(block.text)
        else:
            place = f"messages.content.{number}"
            problem = f"{place}: a message of role {message.role} has no {block.type}"
            raise ApiError(400, problem, param=place, code="invalid_value")
    return messages + _texts(message, texts) if messages else _texts(message, texts or [""])


def _texts(message: Message, texts: Sequence[str]) -> list[ChatMessage]:
    return [ChatMessage(role=message.role, content="\n".join(texts))] if texts else []


def _result(block: ToolResultBlock) -> ChatMessage:
    text = _joined(block.content)
    content = f"Error: {text}" if block.is_error else text
    return ChatMessage(role="tool", tool_call_id=block.tool_use_id, content=content)


def _said(message: Message) -> ChatMessage:
    """Thoughts of earlier answers are left out: models are not shown them again."""
    calls = [
        EarlierCall(
            id=block.id,
            function=CalledFunction(
                name=block.name, arguments=json.dumps(block.input, ensure_ascii=False)
            ),
        )
        for block in message.content
        if isinstance(block, ToolUseBlock)
    ]
    text = _joined(block for block in message.content if isinstance(block, TextBlock))
    return ChatMessage(role="assistant", content=text, tool_calls=calls or None)


def _joined(blocks: Iterable[TextBlock]) -> str:
    return "\n".join(block.text for block in blocks)


def _tool(tool: Tool) -> Json:
    function = {"name": tool.name, "parameters": tool.input_schema}
    for name in ("description", "strict"):
        if (value := getattr(tool, name)) is not None:
            function[name] = value
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None) -> str | Json | None:
    if choice is None:
        return None
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type
