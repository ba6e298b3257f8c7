"""OpenAI's protocol as pure functions: a request becomes messages, tools and settings.

https://platform.openai.com/docs/api-reference/chat
"""

import json
from dataclasses import replace
from typing import Any

from calculator.errors import OptionError
from glm4q.decode.sampling import SamplingParams
from glm4q.server.errors import ApiError, unsupported
from glm4q.server.request.billing_header import without_billing_header
from glm4q.server.request.requests import ChatMessage, ChatRequest, EarlierCall, Sampled
from glm4q.tools.calls import CallStyle
from glm4q.tools.python_calls import write_python_call

SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


def sampling_params(
    request: Sampled, own: SamplingParams, max_tokens: int | None, *, vocab_size: int
) -> list[SamplingParams]:
    """One setting for each choice: what the request leaves open is the model's own.

    Choices of one seed differ: each has the seed after that of the one before it.
    """
    given = {name: value for name in SAMPLED if (value := getattr(request, name)) is not None}
    try:
        params = replace(
            own,
            **given,
            logit_bias=request.biases,
            log_probabilities=request.log_probabilities,
            max_tokens=max_tokens,
        )
        params.check_tokens(vocab_size)
        if request.seed is None:
            return [params] * (request.n or 1)
        first = request.seed % 2**62  # OpenAI's seeds may be negative
        return [replace(params, seed=first + index) for index in range(request.n or 1)]
    except OptionError as error:
        name = str(error).split()[0].rstrip(":")
        raise ApiError(400, str(error), param=name, code="invalid_value") from None


def max_tokens_of(request: ChatRequest) -> int | None:
    """The limit under its new or its old name."""
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        message = f"max_tokens is {old} and max_completion_tokens is {new}: give one of them"
        raise ApiError(400, message, param="max_completion_tokens", code="invalid_value")
    return old if new is None else new


def offered_tools(request: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown, as templates take them."""
    if request.tool_choice == "none" or not request.tools:
        return []
    return [tool.for_template for tool in request.tools]


def template_messages(request: ChatRequest, style: CallStyle) -> list[dict[str, Any]]:
    """The messages as a chat template reads them.

    style: how the template writes calls. All but OpenAI's own way take a call's result in GLM-4's
    role `observation`.
    """
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(request.messages):
        content = _content(message, f"messages.{number}")
        if message.role == "tool":
            messages.append(_result(message, content, style))
        elif message.role == "assistant":
            messages += _said(message, content, style)
        else:
            role = "system" if message.role == "developer" else message.role
            shown = without_billing_header(content) if role == "system" else content
            if shown or not content:
                messages.append({"role": role, "content": shown})
    return messages


def _content(message: ChatMessage, place: str) -> str:
    if message.name is not None and message.role != "tool":
        raise unsupported(f"{place}.name", "chat templates show no names")
    if message.tool_calls and message.role != "assistant":
        raise ApiError(400, f"{place}.tool_calls: only the assistant calls tools", param=place)
    if message.content is None:
        if message.role != "assistant":
            raise ApiError(400, f"{place}.content: only an assistant's may be null", param=place)
        return ""
    if isinstance(message.content, str):
        return message.content
    return "".join(_text(part, f"{place}.content") for part in message.content)


def _text(part: dict[str, Any], place: str) -> str:
    if part.get("type") != "text":
        raise unsupported(place, f"parts of type {str(part.get('type'))[:40]!r} are not supported")
    if not isinstance(part.get("text"), str):
        raise ApiError(400, f"{place}: a part of type text needs a text", param=place)
    return str(part["text"])


def _result(message: ChatMessage, content: str, style: CallStyle) -> dict[str, Any]:
    if style != "tool_calls":
        return {"role": "observation", "content": content}
    known = {"tool_call_id": message.tool_call_id, "name": message.name}
    return {"role": "tool", "content": content, **known}


def _said(message: ChatMessage, content: str, style: CallStyle) -> list[dict[str, Any]]:
    calls = message.tool_calls or []
    if style == "tool_calls":
        reply: dict[str, Any] = {"role": "assistant", "content": content}
        return [
            {**reply, "tool_calls": [_call_for_template(call) for call in calls]}
            if calls
            else reply
        ]
    own = [{"role": "assistant", "content": content}] if content or not calls else []
    return own + [
        {
            "role": "assistant",
            "metadata": call.function.name,
            "content": _call_content(call, style),
        }
        for call in calls
    ]


def _call_content(call: EarlierCall, style: CallStyle) -> str:
    """Write a call as the model would. What is no object stays as the client sent it."""
    arguments = _read_arguments(call)
    if style == "python" and isinstance(arguments, dict):
        return write_python_call(arguments)
    return call.function.arguments


def _read_arguments(call: EarlierCall) -> Any:
    try:
        return json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        return call.function.arguments


def _call_for_template(call: EarlierCall) -> dict[str, Any]:
    """Templates print arguments as an object."""
    function = {"name": call.function.name, "arguments": _read_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}
