"""What one request may ask for has bounds, and each is named where it is passed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.glm4q.server.scripted import NAME, Running, serving

CHAT = "/v1/chat/completions"
MESSAGE = {"role": "user", "content": "Hello"}
DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"items": DEEP}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [MESSAGE], **fields}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def matching(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "yes") as server:
        yield server


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"messages": [MESSAGE] * 4097}, "at most 4096 items"),
        ({"tools": [tool(f"f{number}") for number in range(129)]}, "at most 128 items"),
        ({"n": 17}, "less than or equal to 16"),
        ({"stop": ["a"] * 17}, "at most 16 strings"),
        ({"max_tokens": 2**31}, "less than or equal to 2147483647"),
        ({"logprobs": True, "top_logprobs": 21}, "less than or equal to 20"),
        (matching(DEEP), "64 levels deep at most"),
        (matching({"enum": ["x" * 140_000]}), "131,072 characters at most"),
        ({"messages": [{**MESSAGE, "content": "x" * 3000}]}, "and the context holds 2000"),
    ],
)
def test_each_bound_is_named(running: Running, fields: dict[str, Any], limit: str) -> None:
    answer = httpx2.post(f"{running.url}{CHAT}", json=body(**fields))
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert limit in message
