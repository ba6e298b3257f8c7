"""The official openai package, unmodified, against a running server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.glm4q.server.scripted import NAME, Running, serving, wait_for

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALL = 'get_weather\n{"city": "Köln"}'


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "Grüße, 世界! 🙂 END here") as server:
        yield server


@pytest.fixture(scope="module")
def calling(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, CALL) as server:
        yield server


def client(running: Running, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{running.url}/v1", api_key=settings.pop("key", "none"), max_retries=0, **settings
    )


def test_a_chat_in_one_piece_and_as_a_stream_say_the_same_characters(running: Running) -> None:
    with client(running) as openai_client:
        whole = openai_client.chat.completions.create(model=NAME, messages=HELLO)
        pieces = list(
            openai_client.chat.completions.create(model=NAME, messages=HELLO, stream=True)
        )
    answer = "Grüße, 世界! 🙂 END here"
    assert whole.choices[0].message.content == answer
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(answer.encode())
    assert whole.usage.prompt_tokens == len("[user]Hello[assistant]")
    texts = [piece.choices[0].delta.content or "" for piece in pieces]
    assert "".join(texts) == answer
    assert "🙂" in texts  # four tokens, never cut
    assert pieces[0].choices[0].delta.role == "assistant"
    assert all(piece.usage is None for piece in pieces)
    assert [piece.choices[0].finish_reason for piece in pieces][-2:] == [None, "stop"]


def test_usage_comes_in_a_piece_without_choices_where_it_is_asked_for(running: Running) -> None:
    with client(running) as openai_client:
        *pieces, last = openai_client.chat.completions.create(
            model=NAME, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(piece.choices for piece in pieces)


def test_no_part_of_a_stop_string_is_said(running: Running) -> None:
    with client(running) as openai_client:
        pieces = openai_client.chat.completions.create(
            model=NAME, messages=HELLO, stream=True, stop=[" END h", "never"]
        )
        choices = [piece.choices[0] for piece in pieces]
    assert "".join(choice.delta.content or "" for choice in choices) == "Grüße, 世界! 🙂"
    assert choices[-1].finish_reason == "stop"
    wait_for(lambda: not running.decoder.answers)


def test_limits_seeds_and_choices_reach_the_decoder(running: Running) -> None:
    with client(running) as openai_client:
        answer = openai_client.chat.completions.create(
            model=NAME,
            messages=HELLO,
            n=3,
            seed=7,
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=4,
        )
    assert [choice.message.content for choice in answer.choices] == ["Gr\u00fc"] * 3
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    params = running.decoder.params[-3:]
    assert [own.seed for own in params] == [7, 8, 9]
    assert {(own.temperature, own.top_p, own.max_tokens) for own in params} == {(0.5, 0.9, 4)}
    assert all(256 in own.stop_token_ids for own in params)


def test_penalties_and_biases_reach_the_decoder(running: Running) -> None:
    with client(running) as openai_client:
        openai_client.chat.completions.create(
            model=NAME,
            messages=HELLO,
            presence_penalty=0.5,
            frequency_penalty=-1,
            logit_bias={"71": -100, "5": 3},
        )
        params = running.decoder.params[-1]
        assert (params.presence_penalty, params.frequency_penalty) == (0.5, -1)
        assert params.logit_bias == {71: -100, 5: 3}
        openai_client.completions.create(model=NAME, prompt="a", frequency_penalty=0.25)
        assert running.decoder.params[-1].frequency_penalty == 0.25


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("presence_penalty", 3, "must be -2 to 2"),
        ("logit_bias", {"288": 1}, "tokens 0 to 287, not 288"),
        ("logit_bias", {"Paris": 1}, "names must be token ids"),
        ("logit_bias", {"1": 200}, "from -100 to 100"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(
    running: Running, field: str, value: object, reason: str
) -> None:
    with client(running) as openai_client, pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(model=NAME, messages=HELLO, extra_body={field: value})
    assert refused.value.param == field
    assert reason in str(refused.value)


def test_a_call_of_a_tool_has_its_id_and_name_in_its_first_piece_alone(calling: Running) -> None:
    with client(calling) as openai_client:
        whole = openai_client.chat.completions.create(model=NAME, messages=HELLO, tools=WEATHER)
        pieces = list(
            openai_client.chat.completions.create(
                model=NAME, messages=HELLO, tools=WEATHER, stream=True
            )
        )
    (call,) = whole.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "Köln"},
    )
    assert whole.choices[0].message.content is None
    assert whole.choices[0].finish_reason == pieces[-1].choices[0].finish_reason == "tool_calls"
    deltas = [part for piece in pieces for part in piece.choices[0].delta.tool_calls or []]
    assert {delta.index for delta in deltas} == {0}
    assert sum(delta.id is not None for delta in deltas) == 1
    assert deltas[0].id is not None
    assert "".join(delta.function.arguments or "" for delta in deltas if delta.function) == (
        '{"city": "Köln"}'
    )
    assert "[tools]" in calling.last_prompt


def test_a_tool_that_is_not_to_be_called_is_not_offered(calling: Running) -> None:
    with client(calling) as openai_client:
        answer = openai_client.chat.completions.create(
            model=NAME, messages=HELLO, tools=WEATHER, tool_choice="none"
        )
    assert answer.choices[0].message.content == CALL
    assert "[tools]" not in calling.last_prompt


def test_messages_of_every_kind_reach_the_prompt(running: Running) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
    ]
    with client(running) as openai_client:
        openai_client.chat.completions.create(model=NAME, messages=messages)
    assert running.last_prompt == "[system]Be short.[user]ab[assistant][tool]sun[assistant]"


def test_text_is_completed(running: Running) -> None:
    with client(running) as openai_client:
        answer = openai_client.completions.create(
            model=NAME, prompt=["one", "two"], max_tokens=2, stop="x"
        )
        pieces = list(
            openai_client.completions.create(model=NAME, prompt="abc", max_tokens=3, stream=True)
        )
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "Gr"), (1, "Gr")]
    assert "".join(piece.choices[0].text for piece in pieces) == "Gr\ufffd"
    assert pieces[-1].choices[0].finish_reason == "length"
    assert running.last_prompt == "abc"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reasoning_effort", "high"),
        ("tool_choice", {"type": "allowed_tools"}),
        ("a_field_of_tomorrow", 1),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    running: Running, field: str, value: object
) -> None:
    with client(running) as openai_client, pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(model=NAME, messages=HELLO, extra_body={field: value})
    assert refused.value.param == field
    assert refused.value.code == "unsupported_parameter"


def test_errors_have_openai_s_shape(running: Running) -> None:
    part: Any = {"type": "image_url", "image_url": {"url": "data:"}}
    with client(running) as openai_client:
        with pytest.raises(openai.NotFoundError) as unknown:
            openai_client.chat.completions.create(model="other", messages=HELLO)
        with pytest.raises(openai.BadRequestError) as image:
            openai_client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": [part]}]
            )
        with pytest.raises(openai.BadRequestError) as long:
            openai_client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "x" * 3000}]
            )
        with pytest.raises(openai.BadRequestError, match="top_p must be above 0"):
            openai_client.chat.completions.create(model=NAME, messages=HELLO, top_p=2)
        assert [model.id for model in openai_client.models.list()] == [NAME]
        assert openai_client.models.retrieve(NAME).id == NAME
    assert unknown.value.code == "model_not_found"
    assert "image_url" in str(image.value)
    assert long.value.code == "context_length_exceeded"
