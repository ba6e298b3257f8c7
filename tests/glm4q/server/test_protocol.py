"""Requests as messages of a template, and events as pieces: pure functions."""

import json
from typing import Any

import pytest

from glm4q.chat.dialects import GLM4
from glm4q.chat.replies import BadCall, ReplyParser, Text
from glm4q.decode.sampling import SamplingParams
from glm4q.server.errors import ApiError
from glm4q.server.openai.choices import ChatChoice
from glm4q.server.request.bodies import read_body
from glm4q.server.request.grammar import reply_grammar
from glm4q.server.request.protocol import max_tokens_of, sampling_params, template_messages
from glm4q.server.request.requests import ChatRequest
from glm4q.tools.calls import ToolCall

CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
            }
        ],
        "reasoning_content": "Rome, then.",
        "refusal": None,
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
]


def chat(**fields: Any) -> ChatRequest:
    return read_body(ChatRequest, json.dumps({"model": "m", "messages": CALLED, **fields}).encode())


def test_glm4_reads_calls_as_its_own_messages() -> None:
    messages = template_messages(chat(), "metadata")
    assert GLM4(messages, tools=None, add_generation_prompt=True) == (
        "[gMASK]<sop><|user|>\nWeather?<|assistant|>\nLet me look."
        '<|assistant|>weather\n{"city": "Rome"}<|observation|>\nsun<|assistant|>'
    )


def test_other_templates_get_calls_with_arguments_as_objects() -> None:
    _, reply, result = template_messages(chat(), "tool_calls")
    (call,) = reply["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert "reasoning_content" not in reply
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_1")


def test_thinking_is_apart_and_only_where_there_is_some() -> None:
    choice = ChatChoice(0, lambda: "id")
    parser = ReplyParser()
    pieces = [
        piece["delta"]
        for text in ("<th", "ink>hm", "m</thi", "nk>\n\nyes")
        for event in parser.feed(text)
        for piece in choice.add(event)
    ]
    assert [next(iter(delta)) for delta in pieces] == ["reasoning_content"] * 2 + ["content"]
    message = choice.whole("stop")["message"]
    assert (message["reasoning_content"], message["content"]) == ("hmm", "yes")


def test_a_call_that_cannot_be_read_is_content_and_halves_of_pairs_are_replaced() -> None:
    choice = ChatChoice(0, lambda: "id")
    choice.add(Text("Now: "))
    choice.add(BadCall("weather\n{", "cut"))
    assert choice.whole("length")["message"]["content"] == "Now: weather\n{"
    (piece,) = choice.add(ToolCall("f", {"a": "\ud800"}))
    assert piece["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": "\ufffd"}'
    assert choice.end("stop")["finish_reason"] == "tool_calls"


def test_what_a_request_leaves_open_is_the_authors() -> None:
    own = SamplingParams(temperature=0.8, top_k=5)
    (params,) = sampling_params(
        chat(temperature=0, seed=-1), own, max_tokens_of(chat()), vocab_size=100
    )
    assert (params.temperature, params.top_k, params.max_tokens) == (0, 5, None)
    assert params.seed is not None
    assert params.seed >= 0


STRICT_NOT = {"name": "f", "strict": True, "parameters": {"type": "object", "not": {}}}
"""A schema that no grammar can follow."""


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 1, "max_completion_tokens": 2},
        {"max_tokens": 10**400},
        {"temperature": float("nan")},
        {"temperature": 10**400},
        {"stop": ["a"] * 17},
        {"stop": ""},
        {"stream_options": {"include_usage": True}},
        {"n": 17},
        {"seed": "7"},
        {"tools": [{"type": "function", "function": STRICT_NOT}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": "a", "name": "Ann"}]},
        {"messages": [{"role": "function", "content": "a"}]},
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        _everything(fields)
    assert refused.value.status == 400
    assert refused.value.param


def _everything(fields: dict[str, Any]) -> None:
    request = chat(**fields)
    sampling_params(request, SamplingParams(), max_tokens_of(request), vocab_size=100)
    template_messages(request, "metadata")
    reply_grammar(request, "metadata")
