"""What whoever runs the server sees: metrics, the log, and memory that is given back."""

import errno
import io
import json
import logging
from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from calculator.errors import MemoryFullError
from glm4q.server.operation.log import LOGGER, JsonFormatter, LogFormat, set_up_log
from tests.glm4q.server.scripted import CONTEXT, NAME, Running, serving, wait_for

CHAT = "/v1/chat/completions"
PROMPT = len("[user]Hello[assistant]")


def body(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], **fields}


def figures(running: Running) -> dict[str, float]:
    text = httpx2.get(f"{running.url}/metrics").text
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the log has, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield written
    LOGGER.setLevel(logging.WARNING)
    LOGGER.removeHandler(handler)


def test_metrics_count_what_happens(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "four", rows=2, queue=3) as server:
        server.decoder.cached_tokens = 7
        for fields in ({}, {"stream": True}, {"n": 2, "max_tokens": 1}):
            httpx2.post(f"{server.url}{CHAT}", json=body(**fields))
        httpx2.post(f"{server.url}{CHAT}", json=body(unknown=1))
        httpx2.get(f"{server.url}/a-path-of-a-stranger")
        wait_for(lambda: figures(server)["glm4q_running"] == 0)
        seen = figures(server)
    assert seen[f"glm4q_requests_total {CHAT} 200"] == 3
    assert seen[f"glm4q_requests_total {CHAT} 400"] == 1
    assert seen["glm4q_requests_total other 404"] == 1
    assert seen["glm4q_answer_tokens_total"] == 4 + 4 + 2
    assert seen["glm4q_prompt_tokens_total"] == 4 * PROMPT
    assert seen["glm4q_cached_prompt_tokens_total"] == 4 * 7
    assert (seen["glm4q_answers_total stop"], seen["glm4q_answers_total length"]) == (2, 2)
    assert seen["glm4q_time_to_first_token_seconds_count"] == 4
    assert seen["glm4q_time_between_tokens_seconds_count"] == 3 + 3
    assert (seen["glm4q_rows"], seen["glm4q_queue_room"], seen["glm4q_waiting"]) == (2, 3, 0)
    assert 0 < seen["glm4q_longest_pause_seconds"] < 5
    assert seen["glm4q_pause_bound_seconds"] == 0.25
    assert seen["glm4q_kv_tokens"] == 4 * PROMPT
    assert seen["glm4q_kv_room_tokens"] == 2 * CONTEXT
    assert seen["glm4q_planned_bytes gpu"] > 5e9
    assert seen["glm4q_held_bytes host"] > 1e8


def test_the_log_has_a_line_for_each_answer_and_request_and_no_text(
    chat_checkpoint: Path, lines: io.StringIO
) -> None:
    with serving(chat_checkpoint, "an answer") as server:
        answered = httpx2.post(f"{server.url}{CHAT}", json=body())
        httpx2.get(f"{server.url}/secret-path")
        server.decoder.failure = MemoryFullError("no memory left")
        httpx2.post(f"{server.url}{CHAT}", json=body())
        wait_for(lambda: len(lines.getvalue().splitlines()) == 5)
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    answer, failed = (line for line in written if line["event"] == "answer")
    request, stranger, _ = (line for line in written if line["event"] == "request")
    assert answer["request"] == request["request"] == answered.headers["x-request-id"]
    assert (answer["prompt_tokens"], answer["tokens"], answer["reason"]) == (PROMPT, 9, "stop")
    assert 0 <= answer["queue_seconds"] <= answer["first_token_seconds"] <= answer["seconds"]
    assert (request["endpoint"], request["status"]) == (CHAT, 200)
    assert (stranger["endpoint"], stranger["status"]) == ("other", 404)
    assert (failed["reason"], failed["error"]) == ("error", "MemoryFullError")
    for text in ("Hello", "an answer", "secret-path", "no memory left"):
        assert text not in lines.getvalue()


def test_memory_is_given_back_when_nobody_asks_and_taken_again(
    chat_checkpoint: Path, lines: io.StringIO
) -> None:
    with serving(chat_checkpoint, "yes", idle_seconds=0.05) as server:
        wait_for(lambda: not server.decoder.loaded)
        assert httpx2.get(f"{server.url}/health").json() == {"status": "ok", "loaded": False}
        first = httpx2.post(f"{server.url}{CHAT}", json=body())
        wait_for(lambda: not server.decoder.loaded)
        server.decoder.load_failure = MemoryFullError("another program took the rest")
        failed = httpx2.post(f"{server.url}{CHAT}", json=body())
        server.decoder.load_failure = None
        again = httpx2.post(f"{server.url}{CHAT}", json=body())
        assert figures(server)["glm4q_loads_total"] == 2
    assert (first.status_code, failed.status_code, again.status_code) == (200, 500, 200)
    assert "another program took the rest" in failed.json()["error"]["message"]
    events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert events[:2] == ["unloaded", "request"]
    assert events.count("loaded") == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_no_fault_of_the_program_is_one_line(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn reports a request that the end of the server cuts off, and asyncio that no more files
    can be opened, with a traceback.
    """
    uvicorn, asyncio = logging.getLogger("uvicorn"), logging.getLogger("asyncio")
    for logger in (LOGGER, uvicorn, asyncio):
        for name in ("handlers", "propagate", "level"):  # set back when the test ends
            monkeypatch.setattr(logger, name, getattr(logger, name))
    set_up_log(log_format)
    uvicorn.error("Exception", exc_info=CancelledError())
    uvicorn.error("Exception", exc_info=ValueError())
    asyncio.error("Exception", exc_info=OSError(errno.EMFILE, "Too many open files"))
    asyncio.warning("socket.send() raised exception.")
    shown = capsys.readouterr().err
    assert shown.count("a request was cut off") == 1
    assert "socket.send()" not in shown
    assert shown.count("connections wait: Too many open files") == 1
    assert "CancelledError" not in shown
    assert "OSError" not in shown
    assert "ValueError" in shown
