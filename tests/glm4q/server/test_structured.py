"""Formats of answers, forced calls and log-probabilities, asked for by the openai package."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pydantic
import pytest

from tests.glm4q.server.scripted import NAME, Running, serving
from tests.glm4q.server.test_openai_client import HELLO, client

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "size": {"enum": [1, 2]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
TEXT = "Grüße, 🙂 END here"


def tool(name: str, parameters: Any = CITY) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def named(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, TEXT) as server:
        yield server


@pytest.fixture(scope="module")
def chat(running: Running) -> Iterator[Any]:
    """chat(**fields): the answer to a request with these fields."""
    with client(running) as openai_client:

        def ask(**fields: Any) -> Any:
            return openai_client.chat.completions.create(model=NAME, messages=HELLO, **fields)

        yield ask


def test_an_answer_matches_its_schema_whole_and_streamed(chat: Any) -> None:
    answer = chat(response_format=named(CITY), n=2)
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), CITY)
        assert choice.finish_reason == "stop"
    pieces = chat(response_format=named(CITY), stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    jsonschema.validate(json.loads(text), CITY)


def test_an_answer_is_some_json_object(chat: Any) -> None:
    answer = chat(response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)
    assert chat(response_format={"type": "text"}).choices[0].message.content == TEXT


def test_the_clients_own_parser_reads_a_pydantic_model(running: Running) -> None:
    class City(pydantic.BaseModel, extra="forbid"):
        capital: bool
        people: int = pydantic.Field(ge=0, le=99)

    with client(running) as openai_client:
        answer = openai_client.chat.completions.parse(
            model=NAME, messages=HELLO, response_format=City
        )
        assert isinstance(answer.choices[0].message.parsed, City)
        with pytest.raises(openai.LengthFinishReasonError):
            openai_client.chat.completions.parse(
                model=NAME, messages=HELLO, response_format=City, max_tokens=4
            )


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "b"}}])
def test_a_call_that_must_come_matches_its_parameters(chat: Any, choice: Any) -> None:
    tools = [tool("a", {"type": "object", "properties": {}, "additionalProperties": False})]
    answer = chat(tools=[*tools, tool("b")], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    if call.function.name == "b":
        jsonschema.validate(json.loads(call.function.arguments), CITY)
    else:
        assert (choice, call.function.arguments) == ("required", "{}")


def strict(name: str) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": CITY, "strict": True}}


def test_a_strict_tools_calls_match_among_text_that_stays_free(running: Running, chat: Any) -> None:
    running.begins('I look it up.\n{"name": "b", "arguments": ')
    try:
        answer = chat(tools=[strict("b"), tool("a")]).choices[0]
        (call, *_) = answer.message.tool_calls
        assert call.function.name == "b"
        jsonschema.validate(json.loads(call.function.arguments), CITY)
        assert answer.message.content.startswith("I look it up.\n")
        running.begins("Two words, ")
        assert chat(tools=[strict("b")]).choices[0].message.content.startswith("Two words, ")
    finally:
        running.begins("")


def test_without_parallel_calls_one_is_the_last(running: Running, chat: Any) -> None:
    running.begins('{"name": "b", "arguments": ')
    try:
        fields = {"tools": [tool("b")], "parallel_tool_calls": False}
        answer = chat(**fields).choices[0]
        pieces = list(chat(**fields, stream=True))
    finally:
        running.begins("")
    assert len(answer.message.tool_calls) == 1
    assert isinstance(json.loads(answer.message.tool_calls[0].function.arguments), dict)
    assert answer.message.content is None
    assert sum(bool(piece.choices[0].delta.tool_calls) for piece in pieces) == 1


def test_tool_choice_none_offers_no_tool(running: Running, chat: Any) -> None:
    answer = chat(tools=[strict("b")], tool_choice="none").choices[0].message
    assert (answer.content, answer.tool_calls) == (TEXT, None)
    assert "[tools]" not in running.last_prompt


def test_an_answer_with_tools_is_a_call_or_matches(chat: Any) -> None:
    answer = chat(tools=[tool("b")], response_format=named(CITY)).choices[0].message
    text = answer.tool_calls[0].function.arguments if answer.tool_calls else answer.content
    jsonschema.validate(json.loads(text), CITY)


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        (
            {"response_format": named({"type": "object", "not": {}})},
            "response_format",
            "these keywords are not supported: not",
        ),
        (
            {"response_format": named({"$ref": "file:///etc/passwd"})},
            "response_format",
            "may only point into the schema itself",
        ),
        (
            {"response_format": named({"type": "string", "pattern": "a" * 200_000})},
            "response_format",
            "131,072 characters at most",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "needs it",
        ),
        ({"response_format": named(CITY), "stop": "x"}, "stop", "would cut an answer"),
        ({"tool_choice": "required"}, "tool_choice", "offers no such tool"),
        (
            {
                "tools": [tool("b")],
                "tool_choice": {"type": "function", "function": {"name": "c"}},
            },
            "tool_choice",
            "offers no such tool",
        ),
        (
            {"tools": [tool("b", {"type": "object", "not": {}})], "tool_choice": "required"},
            "tool_choice",
            "the tool b: .*not supported: not",
        ),
        ({"top_logprobs": 3}, "top_logprobs", "only a request with logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    chat: Any, fields: Any, param: str, reason: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as refused:
        chat(**fields)
    assert refused.value.param == param


def test_log_probabilities_are_those_of_the_texts_tokens(chat: Any) -> None:
    """A token of this tokenizer is a byte; the stop string's own are not said."""
    choice = chat(logprobs=True, top_logprobs=2, stop=" END").choices[0]
    assert choice.message.content == "Grüße, 🙂"
    entries = choice.logprobs.content
    assert bytes(b for entry in entries for b in entry.bytes) == "Grüße, 🙂".encode()
    assert {entry.logprob for entry in entries} == {-0.5}
    assert [len(entry.top_logprobs) for entry in entries] == [2] * len(entries)
    assert entries[0].top_logprobs[0].token == entries[0].token == "G"
    pieces = list(chat(logprobs=True, stop=" END", stream=True))
    assert all(
        bytes(b for entry in piece.choices[0].logprobs.content for b in entry.bytes).decode()
        == piece.choices[0].delta.content
        for piece in pieces
        if piece.choices[0].delta.content
    )


def test_a_completion_has_log_probabilities_of_its_own_kind(running: Running) -> None:
    with client(running) as openai_client:
        choice = openai_client.completions.create(
            model=NAME, prompt="x", logprobs=1, max_tokens=4
        ).choices[0]
        pieces = openai_client.completions.create(
            model=NAME, prompt="x", logprobs=0, max_tokens=4, stream=True
        )
        offsets = [p.choices[0].logprobs.text_offset for p in pieces if p.choices[0].logprobs]
    assert choice.text == "Grü"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["G", "r", "\ufffd", "\ufffd"]
    assert choice.logprobs.token_logprobs == [-0.5] * 4
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[0] == {"G": -0.5}
    assert choice.logprobs.text_offset == [0, 1, 2, 2]
    assert offsets == [[0], [1], [2, 2]]
