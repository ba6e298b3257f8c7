"""Nobody holds a row for ever: slow answers, slow bodies, clients that die or do not read."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from glm4q.server.guard import LOOPBACK, Rules
from tests.glm4q.server.scripted import NAME, serving, wait_for
from tests.glm4q.server.test_operation import figures

CHAT = "/v1/chat/completions"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], **fields}


def test_a_request_that_takes_too_long_ends_with_the_error_of_its_api(
    chat_checkpoint: Path,
) -> None:
    with serving(chat_checkpoint, "yes", rows=1, silent=True, time_limit=0.3) as server:
        begun = time.monotonic()
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
            pytest.raises(openai.InternalServerError) as late,  # unmodified: it may try again
        ):
            client.chat.completions.create(**body())
        assert late.value.status_code == 504
        assert late.value.code == "request_timeout"
        assert "longer than the 0.3 s" in late.value.message
        assert server.decoder.cancelled == 1  # it did not try again, and its row is free
        wait_for(lambda: server.decoder.free == 1)
        streamed = httpx2.post(f"{server.url}{CHAT}", json=body(stream=True)).text
        assert json.loads(streamed.strip().splitlines()[-1][6:])["error"]["type"] == "timeout_error"
        with (
            anthropic.Anthropic(base_url=server.url, api_key="none") as other,
            pytest.raises(anthropic.APIStatusError) as slow,
        ):
            other.messages.create(model=NAME, max_tokens=9, messages=body()["messages"])
        assert slow.value.status_code == 504
        assert isinstance(slow.value.body, dict)
        assert slow.value.body["error"]["type"] == "timeout_error"
        assert time.monotonic() - begun < 5
        server.decoder.gate.set()
        assert httpx2.post(f"{server.url}{CHAT}", json=body()).status_code == 200


def test_a_request_in_the_queue_ends_too(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", rows=1, silent=True, time_limit=0.3) as server:
        answers = httpx2.post(f"{server.url}{CHAT}", json=body(n=3))
        assert answers.status_code == 504
        wait_for(lambda: server.worker.waiting == 0 and server.worker.running == 0)


def test_a_body_that_does_not_come_is_not_waited_for(chat_checkpoint: Path) -> None:
    rules = Rules(LOOPBACK, max_body_seconds=0.2)
    with serving(chat_checkpoint, "yes", rules=rules) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as slow:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n"
            slow.sendall(head.encode() + b'{"model":')
            answer = slow.recv(4096)
            while b"did not come in time" not in answer:
                answer += slow.recv(4096)
            assert answer.startswith(b"HTTP/1.1 408")
        assert httpx2.post(f"{server.url}{CHAT}", json=body()).status_code == 200


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_connection_that_asks_nothing_is_closed(before: bytes, chat_checkpoint: Path) -> None:
    """Also one that sends the head of a request byte by byte, at first or behind an answer."""
    with serving(chat_checkpoint, "yes", silent_seconds=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(before)
            answer = connection.recv(4096) if before else b""
            assert answer.startswith(b"HTTP/1.1 200" if before else b"")
            begun = time.monotonic()
            with pytest.raises(ConnectionError):
                _send_slowly(connection, seconds=10)
            assert 0.5 < time.monotonic() - begun < 5


def _send_slowly(connection: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"G")
        time.sleep(0.1)


def test_an_answer_that_takes_longer_than_a_silent_connection_comes(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", silent=True, silent_seconds=1) as server:
        later = threading.Timer(2, server.decoder.gate.set)
        later.start()
        assert httpx2.post(f"{server.url}{CHAT}", json=body(), timeout=20).status_code == 200
        later.join()


def test_a_stream_that_nobody_reads_holds_up_nobody_and_loses_its_row(
    chat_checkpoint: Path,
) -> None:
    with serving(chat_checkpoint, "word " * 40_000, send_seconds=0.5, rows=2) as server:
        host, port = server.url.removeprefix("http://").split(":")
        raw = json.dumps(body(stream=True)).encode()
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n\r\n"
            reader.sendall(head.encode() + raw)
            wait_for(lambda: server.worker.running == 1)
            server.decoder.script = server.decoder.script[:5]
            begun = time.monotonic()
            assert httpx2.post(f"{server.url}{CHAT}", json=body()).status_code == 200
            assert time.monotonic() - begun < 2
            wait_for(lambda: server.decoder.free == 2)
            assert server.decoder.cancelled == 1


def test_clients_that_are_killed_in_mid_stream_free_their_rows(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "word " * 400_000, rows=3) as server:
        code = (
            f"import httpx2\nwith httpx2.stream('POST', '{server.url}{CHAT}', "
            f"json={body(stream=True)!r}) as answer:\n    for line in answer.iter_lines(): pass"
        )
        clients = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        wait_for(lambda: server.decoder.free == 0, 60)
        for client in clients:
            client.kill()
        wait_for(lambda: server.decoder.free == 3)
        assert server.decoder.cancelled == 3
        for client in clients:
            client.wait()
        wait_for(lambda: figures(server)["glm4q_answers_total cancelled"] == 3)
