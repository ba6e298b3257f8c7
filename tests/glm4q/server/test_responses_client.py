"""The responses of the official openai package, unmodified, against a running server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseReasoningItem

from calculator.errors import MemoryFullError
from tests.glm4q.server.scripted import NAME, Running, serving

ANSWER = "Grüße, 世界! 🙂"
WEATHER: list[Any] = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
]


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, ANSWER) as server:
        yield server


def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def respond(running: Running, **fields: Any) -> Response:
    with client(running) as api:
        response = api.responses.create(model=NAME, **fields)
        assert isinstance(response, Response)
        return response


def stream(running: Running, **fields: Any) -> tuple[list[Any], Response]:
    with client(running) as api, api.responses.stream(model=NAME, **fields) as events:
        return list(events), events.get_final_response()


def test_a_response_in_one_piece_and_as_a_stream_say_the_same(running: Running) -> None:
    asked: dict[str, Any] = {"instructions": "Be brief.", "input": "Hello", "metadata": {"a": "b"}}
    whole = respond(running, store=False, **asked)
    events, streamed = stream(running, **asked)
    assert running.last_prompt == "[system]Be brief.[user]Hello[assistant]"
    for response in (whole, streamed):
        assert response.output_text == ANSWER
        assert (response.status, response.instructions) == ("completed", "Be brief.")
        assert response.metadata == {"a": "b"}
        assert response.usage is not None
        assert response.usage.output_tokens == len(ANSWER.encode())
        assert response.usage.input_tokens == len(running.last_prompt)
    assert [event.sequence_number for event in events] == [*range(len(events))]
    names = [event.type.removeprefix("response.") for event in events]
    once = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    assert once == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_a_call_is_an_item_and_its_result_goes_back_as_one(chat_checkpoint: Path) -> None:
    text = 'Look.\nget_weather\n{"city": "Köln"}'
    with serving(chat_checkpoint, text) as server:
        asked: dict[str, Any] = {"input": "Weather?", "tools": WEATHER}
        whole, (events, streamed) = respond(server, **asked), stream(server, **asked)
        for response in (whole, streamed):
            message, call = response.output
            assert isinstance(call, ResponseFunctionToolCall)
            assert (message.type, call.name) == ("message", "get_weather")
            assert json.loads(call.arguments) == {"city": "Köln"}
        arguments = [event for event in events if "arguments" in event.type]
        assert [event.type.rpartition(".")[2] for event in arguments] == ["delta", "done"]
        assert arguments[0].item_id == streamed.output[1].id
        assert isinstance(call, ResponseFunctionToolCall)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
        earlier = [item.model_dump(exclude_none=True) for item in streamed.output]
        respond(server, input=[{"role": "user", "content": "Weather?"}, *earlier, result])
        expected = "[user]Weather?[assistant]Look.\n[tool]sun[assistant]"
        assert server.last_prompt == expected


def test_thoughts_are_an_item_of_their_own(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "hm</think>\n\nyes", thinks=True) as server:
        whole, (events, streamed) = respond(server, input="a"), stream(server, input="a")
        for response in (whole, streamed):
            thought, _ = response.output
            assert isinstance(thought, ResponseReasoningItem)
            assert thought.content is not None
            assert thought.content[0].text == "hm"
            assert response.output_text == "yes"
            assert response.usage is not None
            assert 2 <= response.usage.output_tokens_details.reasoning_tokens < 15
        assert "response.reasoning_text.delta" in {event.type for event in events}
        back = [item.model_dump(exclude_none=True) for item in streamed.output]
        respond(server, input=[*back, {"role": "user", "content": "and?"}])
        assert server.last_prompt == "[assistant]yes[user]and?[assistant]<think>\n"


def test_a_limit_makes_a_response_incomplete(running: Running) -> None:
    whole = respond(running, input="Hello", max_output_tokens=2)
    with client(running) as api:
        *_, last = api.responses.create(
            model=NAME, input="Hello", max_output_tokens=2, temperature=0.5, stream=True
        )
    assert (whole.status, last.type) == ("incomplete", "response.incomplete")
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert running.decoder.params[-1].temperature == 0.5


def test_a_stream_that_fails_says_so_at_its_end(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes") as server, client(server) as api:
        server.decoder.failure = MemoryFullError("no memory left")
        *_, last = api.responses.create(model=NAME, input="Hello", stream=True)
        server.decoder.failure = MemoryFullError("no memory left")
        with pytest.raises(openai.InternalServerError, match="no memory left"):
            api.responses.create(model=NAME, input="Hello")
        assert api.responses.create(model=NAME, input="Hello").output_text == "yes"
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "no memory left"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0"),
        ({"input": []}, "input"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    running: Running, fields: dict[str, Any], named: str
) -> None:
    with client(running) as api, pytest.raises(openai.BadRequestError) as refused:
        api.responses.create(model=NAME, input="Hello", extra_body=fields)
    assert refused.value.param is not None
    assert refused.value.param.startswith(named)
