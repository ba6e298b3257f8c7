"""The official anthropic package, unmodified, against a running server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import jsonschema
import pytest

from calculator.errors import MemoryFullError
from glm4q.server.guard import Rules
from tests.glm4q.server.scripted import CONTEXT, NAME, Running, serving, wait_for

ANSWER = "Grüße, 世界! 🙂 END here"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER: list[Any] = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        "cache_control": {"type": "ephemeral"},
    }
]
BILLING = "x-anthropic-billing-header: cc_version=2.1; cch={};"


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, ANSWER) as server:
        yield server


@pytest.fixture(scope="module")
def calling(chat_checkpoint: Path) -> Iterator[Running]:
    text = 'Let me look.\nget_weather\n{"city": "Köln", "days": 2}'
    with serving(chat_checkpoint, text) as server:
        yield server


def client(running: Running, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=running.url, api_key=key, max_retries=0)


def ask(running: Running, **fields: Any) -> anthropic.types.Message:
    asked: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 100, **fields}
    with client(running) as api:
        message = api.messages.create(**asked)
        assert isinstance(message, anthropic.types.Message)
        return message


def stream(running: Running, **fields: Any) -> tuple[list[Any], anthropic.types.Message]:
    asked: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 100, **fields}
    with client(running) as api, api.messages.stream(**asked) as events:
        return list(events), events.get_final_message()


def test_a_message_in_one_piece_and_as_a_stream_say_the_same(running: Running) -> None:
    whole = ask(running)
    events, streamed = stream(running)
    for message in (whole, streamed):
        (block,) = message.content
        assert (block.type, block.model_dump()["text"]) == ("text", ANSWER)
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (
        len("[user]Hello[assistant]"),
        len(ANSWER.encode()),
    )
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert "🙂" in [event.text for event in events if event.type == "text"]


def test_events_come_in_the_order_of_the_protocol(calling: Running) -> None:
    asked = {"model": NAME, "messages": HELLO, "max_tokens": 99, "tools": WEATHER, "stream": True}
    lines = httpx2.post(f"{calling.url}/v1/messages", json=asked).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    once = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert once == ["message_start", "ping", *block, *block, "message_delta", "message_stop"]


def test_a_call_of_a_tool_is_a_block_whose_input_comes_as_json(calling: Running) -> None:
    whole = ask(calling, tools=WEATHER)
    events, streamed = stream(calling, tools=WEATHER)
    for message in (whole, streamed):
        text, call = message.content
        assert isinstance(text, anthropic.types.TextBlock)
        assert text.text == "Let me look.\n"
        assert isinstance(call, anthropic.types.ToolUseBlock)
        assert (call.name, call.input) == ("get_weather", {"city": "Köln", "days": 2})
        assert call.id.startswith("toolu_")
        assert message.stop_reason == "tool_use"
    assert [event.type for event in events].count("input_json") == 1
    unoffered = ask(calling, tools=WEATHER, tool_choice={"type": "none"})
    assert unoffered.stop_reason == "end_turn"


CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Köln", "Bonn"]}},
    "required": ["city"],
    "additionalProperties": False,
}
ALONE = {"type": "auto", "disable_parallel_tool_use": True}
STRICT: list[Any] = [
    {"name": "see", "input_schema": CITY, "strict": True},
    {"name": "hear", "input_schema": CITY},
]


@pytest.mark.parametrize(
    ("choice", "begin"),
    [
        ({"type": "any"}, ""),
        ({"type": "tool", "name": "see"}, ""),
        ({"type": "auto"}, 'I go and see.\n{"name": "see", "arguments": {"city": "K'),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            '{"name": "see", "arguments": {"city": ',
        ),
    ],
)
def test_calls_match_as_the_tool_choice_and_strict_tools_say(
    chat_checkpoint: Path, choice: Any, begin: str
) -> None:
    with serving(chat_checkpoint, ANSWER) as server:
        server.begins(begin)
        message = ask(server, tools=STRICT, tool_choice=choice)
    calls = [block for block in message.content if isinstance(block, anthropic.types.ToolUseBlock)]
    assert calls
    jsonschema.validate(calls[0].input, CITY)
    if choice["type"] != "auto" or "disable_parallel_tool_use" in choice:
        assert len(message.content) == 1
        assert message.stop_reason == "tool_use"


def test_blocks_of_every_kind_reach_the_prompt_in_their_order(running: Running) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "sun"},
                {"type": "tool_result", "tool_use_id": "2", "content": [], "is_error": True},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    ask(running, messages=messages, system=[{"type": "text", "text": "Be brief."}])
    expected = (
        "[system]Be brief.[user]a\nb[assistant]look[tool]sun[tool]Error: [user]and?[assistant]"
    )
    assert running.last_prompt == expected


def test_a_billing_header_that_changes_leaves_the_prompt_as_it_was(running: Running) -> None:
    def blocks(number: int) -> list[Any]:
        texts = (BILLING.format(number), "You are a coder.", "Rules.")
        return [{"type": "text", "text": text} for text in texts]

    ask(running, system=blocks(1))
    first = running.last_prompt
    ask(running, system=blocks(2))
    assert (
        running.last_prompt == first == "[system]You are a coder.\n\nRules.[user]Hello[assistant]"
    )
    ask(running, system=BILLING.format(3) + "\nYou are a coder.\n\nRules.")
    assert running.last_prompt == first
    chat = [{"role": "system", "content": BILLING.format(4)}, *HELLO]
    body = {"model": NAME, "messages": chat}
    assert httpx2.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
    assert running.last_prompt == "[user]Hello[assistant]"


def test_the_reason_says_what_ended_the_message(running: Running) -> None:
    stopped = ask(running, stop_sequences=["never", " END h"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " END h")
    assert stopped.content[0].model_dump()["text"] == "Grüße, 世界! 🙂"
    assert ask(running, max_tokens=2).stop_reason == "max_tokens"
    ask(running, extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7})
    params = running.decoder.params[-1]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 7)


def test_tokens_are_counted_also_where_they_do_not_fit(running: Running) -> None:
    with client(running) as api:
        short = api.messages.count_tokens(model=NAME, messages=HELLO, system="Be brief.")
        long = api.messages.count_tokens(
            model=NAME, messages=[{"role": "user", "content": "x" * 2 * CONTEXT}], tools=WEATHER
        )
    assert short.input_tokens == len("[system]Be brief.[user]Hello[assistant]")
    assert long.input_tokens > 2 * CONTEXT


def test_tokens_from_the_cache_count_apart(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes") as server:
        server.decoder.cached_tokens = 5
        whole, (_, streamed) = ask(server), stream(server)
    for usage in (whole.usage, streamed.usage):
        assert usage.cache_read_input_tokens == 5
        assert usage.input_tokens == len("[user]Hello[assistant]") - 5


def test_thoughts_are_a_block_of_their_own_unless_they_are_not_wanted(
    chat_checkpoint: Path,
) -> None:
    with serving(chat_checkpoint, "hm</think>\n\nyes", thinks=True) as server:
        whole, (events, streamed) = ask(server), stream(server)
        hidden = ask(server, thinking={"type": "disabled"})
    for message in (whole, streamed):
        thought, answer = message.content
        assert isinstance(thought, anthropic.types.ThinkingBlock)
        assert (thought.thinking, answer.model_dump()["text"]) == ("hm", "yes")
    assert "thinking" in {event.type for event in events}
    assert [block.type for block in hidden.content] == ["text"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": [*HELLO, {"role": "assistant", "content": "So"}]}, "continued"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "image"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0"),
        ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow"),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, "context"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    running: Running, fields: dict[str, Any], named: str
) -> None:
    body = {"extra_body": fields} if "messages" not in fields else fields
    with pytest.raises(anthropic.BadRequestError, match=named) as refused:
        ask(running, **body)
    error = refused.value.response.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")


def test_errors_have_anthropic_s_shape(chat_checkpoint: Path) -> None:
    rules = Rules(api_key="sesame-sesame", max_body_bytes=9000)
    with serving(chat_checkpoint, "yes", rules=rules, rows=1, queue=0) as server:
        right = client(server, "sesame-sesame")
        asked: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 9}
        with pytest.raises(anthropic.AuthenticationError):
            client(server).messages.create(**asked)
        with pytest.raises(anthropic.NotFoundError):
            right.messages.create(**{**asked, "model": "other"})
        with pytest.raises(anthropic.RequestTooLargeError):
            right.messages.create(**asked, system="x" * 9000)
        server.decoder.failure = MemoryFullError("no memory left")
        with pytest.raises(anthropic.InternalServerError, match="no memory left"):
            right.messages.create(**asked)
        server.decoder.failure = MemoryFullError("no memory left")
        with pytest.raises(anthropic.APIStatusError, match="no memory left"):
            list(right.messages.create(**asked, stream=True))
        server.decoder.gate.clear()
        with right.messages.create(**asked, stream=True):
            wait_for(lambda: server.decoder.free == 0)
            with pytest.raises(anthropic.RateLimitError) as full:
                right.messages.create(**asked)
        wait_for(lambda: server.decoder.free == 1)
    assert int(full.value.response.headers["retry-after"]) >= 1


def test_a_client_that_waits_reads_pings(chat_checkpoint: Path) -> None:
    asked = {"model": NAME, "messages": HELLO, "max_tokens": 9, "stream": True}
    with (
        serving(chat_checkpoint, "yes", silent=True, ping_seconds=0.05) as server,
        httpx2.stream("POST", f"{server.url}/v1/messages", json=asked) as answer,
    ):
        lines = answer.iter_lines()
        names = [line for line in (next(lines) for _ in range(20)) if line.startswith("event: ")]
    assert names[0] == "event: message_start"
    assert set(names[1:]) == {"event: ping"}
    assert len(names) > 3


def test_the_model_is_listed(running: Running) -> None:
    with client(running) as api:
        (listed,) = api.models.list()
        named = api.models.retrieve(NAME)
    assert (listed.id, named.type, named.max_input_tokens) == (NAME, "model", CONTEXT)
