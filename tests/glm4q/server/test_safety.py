"""Who may ask, how much, and what happens to the others when a request goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from calculator.errors import MemoryFullError, OptionError
from glm4q.server.guard import Rules
from glm4q.server.listen import listen, rules_for
from tests.glm4q.server.scripted import NAME, Running, serving, wait_for

CHAT = "/v1/chat/completions"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], **fields}


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "yes", rules=Rules(max_body_bytes=9000)) as server:
        yield server


def test_a_page_of_another_site_may_not_ask(running: Running) -> None:
    rebound = httpx2.get(f"{running.url}/v1/models", headers={"Host": "evil.example:80"})
    foreign = httpx2.get(f"{running.url}/v1/models", headers={"Origin": "http://evil.example"})
    own = httpx2.get(f"{running.url}/v1/models", headers={"Origin": running.url})
    assert (rebound.status_code, foreign.status_code, own.status_code) == (403, 403, 200)
    assert rebound.json()["error"]["type"] == "permission_error"
    assert "access-control-allow-origin" not in own.headers


def test_a_site_that_is_allowed_may_ask_and_ask_before(chat_checkpoint: Path) -> None:
    rules = Rules(origins=("http://page.example",))
    with serving(chat_checkpoint, "yes", rules=rules) as server:
        headers = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
        before = httpx2.options(f"{server.url}{CHAT}", headers=headers)
        asked = httpx2.post(f"{server.url}{CHAT}", headers=headers, json=body())
    assert (before.status_code, asked.status_code) == (200, 200)
    assert asked.headers["access-control-allow-origin"] == "http://page.example"


def test_a_key_is_asked_for_everywhere_but_for_health(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", rules=Rules(api_key="sesame-sesame")) as server:
        url = f"{server.url}/v1/models"
        right = httpx2.get(url, headers={"Authorization": "Bearer sesame-sesame"})
        wrong = httpx2.get(url, headers={"Authorization": "Bearer sesame-sesam"})
        assert httpx2.get(f"{server.url}/health").status_code == 200
        assert httpx2.get(url).status_code == 401
    assert (right.status_code, wrong.status_code) == (200, 401)
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert "sesame" not in wrong.text


def test_other_machines_are_not_let_in_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"0\.0\.0\.0 .* --api-key-file"):
        rules_for("0.0.0.0", None, ())
    (tmp_path / "key").write_text("a-long-key\n")
    assert rules_for("0.0.0.0", tmp_path / "key", ()) == Rules(None, (), "a-long-key")


def test_a_used_port_is_said() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(
            OptionError, match=f"port {port} of 127.0.0.1 .*: address already in use; --port"
        ):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"{", 400),
        (b"[" * 4000, 400),
        (b"[]", 400),
        (b'{"model": "scripted", "messages": []}', 400),
        (b'{"model": "scripted", "messages": [{"role": "user", "content": 5}]}', 400),
        (b'{"model": "scripted", "\\ud800": 1}', 400),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": ""}]}', 404),
        (b'{"text": "' + b"x" * 9000 + b'"}', 413),
    ],
)
def test_a_bad_body_is_one_clear_error(running: Running, raw: bytes, status: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield raw

    answer = httpx2.post(f"{running.url}{CHAT}", content=raw)
    chunked = httpx2.post(f"{running.url}{CHAT}", content=chunks())  # says no length
    assert answer.status_code == chunked.status_code == status
    assert answer.json()["error"]["message"]
    assert "Traceback" not in answer.text
    assert "/" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("depth", [300, 900])
def test_a_deep_schema_is_no_fault_of_the_server(running: Running, depth: int) -> None:
    schema = '{"a":' * depth + "1" + "}" * depth
    function = f'{{"name": "f", "parameters": {schema}}}'
    tools = f'[{{"type": "function", "function": {function}}}]'
    raw = json.dumps(body())[:-1] + f', "tools": {tools}}}'
    answer = httpx2.post(f"{running.url}{CHAT}", content=raw)
    assert answer.status_code in (200, 400), answer.text


def test_unknown_paths_and_methods_have_the_same_shape(running: Running) -> None:
    assert httpx2.get(f"{running.url}/v2").json()["error"]["message"] == "GET /v2: Not Found"
    assert httpx2.get(f"{running.url}{CHAT}").status_code == 405


def test_tokens_there_and_back(running: Running) -> None:
    tokens = httpx2.post(f"{running.url}/tokenize", json={"text": "Grüße"}).json()["tokens"]
    again = httpx2.post(f"{running.url}/detokenize", json={"tokens": tokens})
    refused = httpx2.post(f"{running.url}/detokenize", json={"tokens": [1_000_000]})
    assert again.json() == {"text": "Grüße"}
    assert refused.status_code == 400


def test_the_plan_is_told_and_no_file_is_read_for_it(running: Running, tmp_path: Path) -> None:
    own = httpx2.get(f"{running.url}/v1/plan").json()
    other = httpx2.get(f"{running.url}/v1/plan", params={"gpu": "4060", "weights": "int4"}).json()
    refused = httpx2.get(f"{running.url}/v1/plan", params={"model": str(tmp_path)})
    assert own["context"] == 8192
    assert "4060" in other["gpu"]
    assert refused.status_code == 400


def test_a_client_waits_with_comments_and_frees_its_row_when_it_goes(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", rows=1, silent=True, ping_seconds=0.05) as server:
        with httpx2.stream("POST", f"{server.url}{CHAT}", json=body(stream=True)) as answer:
            lines = answer.iter_lines()
            comments = [line for line in (next(lines) for _ in range(12)) if line.startswith(":")]
            assert comments
            wait_for(lambda: server.decoder.free == 0)
        wait_for(lambda: server.decoder.free == 1)
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(f"{server.url}{CHAT}", json=body(), timeout=0.3)
        wait_for(lambda: server.decoder.cancelled == 2)
        server.decoder.gate.set()
        assert httpx2.post(f"{server.url}{CHAT}", json=body()).status_code == 200


def test_a_full_queue_is_429_with_the_time_to_wait(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", rows=1, queue=1, silent=True) as server:
        refused = httpx2.post(f"{server.url}{CHAT}", json=body(n=3))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"


def test_a_step_that_fails_ends_its_answers_and_not_the_server(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes") as server:
        server.decoder.failure = MemoryFullError("no memory left")
        failed = httpx2.post(f"{server.url}{CHAT}", json=body())
        server.decoder.failure = MemoryFullError("no memory left")
        streamed = httpx2.post(f"{server.url}{CHAT}", json=body(stream=True)).text
        again = httpx2.post(f"{server.url}{CHAT}", json=body())
    assert (failed.status_code, again.status_code) == (500, 200)
    assert failed.json()["error"]["message"] == "no memory left"
    assert "no memory left" in streamed


def test_a_stream_ends_with_done_and_the_connection_stays(running: Running) -> None:
    with httpx2.Client() as http:
        first = http.post(f"{running.url}{CHAT}", json=body(stream=True))
        data = [line[6:] for line in first.text.splitlines() if line.startswith("data: ")]
        second = http.post(f"{running.url}{CHAT}", json=body())
    assert data[-1] == "[DONE]"
    deltas = [json.loads(piece)["choices"][0]["delta"] for piece in data[:-1]]
    assert all("reasoning_content" not in delta and "tool_calls" not in delta for delta in deltas)
    assert first.headers.get("connection") != "close"
    message = second.json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "yes"}
