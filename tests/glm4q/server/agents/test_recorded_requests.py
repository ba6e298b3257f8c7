"""What Claude Code and Codex send, as recorded from both (texts are shortened, tools are fewer)."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.glm4q.server.scripted import Running, serving

RECORDED = Path(__file__).with_name("recorded")
CLAUDE, CODEX = (
    json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("claude_code", "codex")
)
ANSWER = "It says hi."
TURNS = [(CLAUDE, "question"), (CLAUDE, "result"), (CODEX, "question"), (CODEX, "result")]


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, ANSWER, context=40_000) as server:
        yield server


def _send(running: Running, recorded: dict[str, Any]) -> httpx.Response:
    url, body = f"{running.url}{recorded['path']}", recorded["body"]
    return httpx.post(url, json=body, headers=recorded["headers"], timeout=60)


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("program", "turn"), TURNS, ids=[f"{program['program']}, {turn}" for program, turn in TURNS]
)
def test_each_request_is_answered(running: Running, program: dict[str, Any], turn: str) -> None:
    answer = _send(running, program[turn])
    assert answer.status_code == 200, answer.text
    events = _events(answer)
    if program is CLAUDE:
        deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
        assert "".join(delta["text"] for delta in deltas) == ANSWER
        assert [each["type"] for each in events][-2:] == ["message_delta", "message_stop"]
    else:
        assert events[-1]["type"] == "response.completed"
        (item,) = events[-1]["response"]["output"]
        assert item["content"][0]["text"] == ANSWER
    assert "[tools]" in running.last_prompt
    assert "say hello" in running.last_prompt


@pytest.mark.parametrize("program", [CLAUDE, CODEX], ids=["claude", "codex"])
def test_the_request_with_a_result_begins_as_the_one_before_it(
    running: Running, program: dict[str, Any]
) -> None:
    """What the cache has of the first prompt serves the second: only the call is new."""
    for turn in ("question", "result"):
        _send(running, program[turn])
    first, second = (running.tokenizer.decode(prompt) for prompt in running.decoder.prompts[-2:])
    assert second.startswith(first.removesuffix("[assistant]"))
    assert len(second) > len(first)


def test_another_billing_header_leaves_claude_code_s_prompt_as_it_was(running: Running) -> None:
    other = deepcopy(CLAUDE["question"])
    header = other["body"]["system"][0]
    assert header["text"].startswith("x-anthropic-billing-header:")
    header["text"] = header["text"].replace("cc_version=", "cch=9f3; cc_version=9.")
    _send(running, CLAUDE["question"])
    _send(running, other)
    first, second = running.decoder.prompts[-2:]
    assert first == second
    assert "billing" not in running.last_prompt


def test_claude_code_counts_tokens(running: Running) -> None:
    body = CLAUDE["question"]["body"]
    asked = {name: body[name] for name in ("model", "messages", "system", "tools", "thinking")}
    path = "/v1/messages/count_tokens?beta=true"
    counted = _send(running, {**CLAUDE["question"], "path": path, "body": asked})
    _send(running, CLAUDE["question"])
    assert counted.json() == {"input_tokens": len(running.decoder.prompts[-1])}


def test_what_claude_code_tries_first_is_refused_by_name(running: Running) -> None:
    """It offers tools that the server is to load when they are searched for. When these are refused
    it sends all of its tools: `test_programs.py` shows that.
    """
    answer = _send(running, CLAUDE["deferred"])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert ".defer_loading" in error["message"]


def test_what_codex_sends_for_openai_s_own_models_is_refused_by_name(running: Running) -> None:
    own = deepcopy(CODEX["custom"])
    refused = _send(running, own)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasoning.effort")
    own["body"] |= {"reasoning": None, "text": None}
    number = [tool["type"] for tool in own["body"]["tools"]].index("custom")
    refused = _send(running, own)
    assert refused.status_code == 400
    assert f"tools.{number}" in refused.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["local_shell", "web_search", "custom", "namespace"])
def test_tools_that_are_no_functions_are_refused_by_name(running: Running, kind: str) -> None:
    asked = deepcopy(CODEX["question"])
    asked["body"]["tools"].append({"type": kind, "name": "shell"})
    refused = _send(running, asked)
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert f"tools.{len(asked['body']['tools']) - 1}" in message
