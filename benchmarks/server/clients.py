"""A client that takes little of the machine on which the server that it measures runs."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class RefusedError(Exception):
    """The server answered with another status than 200."""

    def __init__(self, head: str) -> None:
        super().__init__(head.splitlines()[0])
        self.status = int(head.split()[1])
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.splitlines()[1:])
        }


@dataclass
class Seen:
    """What one client saw of one answer."""

    text: str = ""
    tokens: int = 0
    to_first: float = 0.0
    """Seconds until its first text, or until its end where it has no text."""
    between: list[float] = field(default_factory=list)
    """Seconds from each piece of the text to the next."""


class Arrivals(asyncio.Protocol):
    """What comes over a connection, with its time. It is read when all is there, so that clients
    and the server do not wait for one another's use of the machine.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Each line with the time at which it was whole."""
        rest = b""
        for moment, data in self.pieces:
            *lines, rest = (rest + data).split(b"\n")
            yield from ((moment, line) for line in lines)


async def stream(url: str, path: str, body: Mapping[str, Any]) -> Seen:
    """Stream one answer of OpenAI's API, and time its pieces. Raises RefusedError."""
    host, port = url.removeprefix("http://").split(":")
    loop, begun = asyncio.get_running_loop(), time.perf_counter()
    transport, arrivals = await loop.create_connection(Arrivals, host, int(port))
    try:
        raw = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        transport.write(head.encode() + raw.encode())
        await arrivals.ended
    finally:
        transport.close()
    answer = b"".join(data for _, data in arrivals.pieces).partition(b"\r\n\r\n")[0].decode()
    if answer.split()[1] != "200":
        raise RefusedError(answer)
    return _seen(arrivals, begun)


def _seen(arrivals: Arrivals, begun: float) -> Seen:
    seen, last = Seen(), begun
    for moment, line in arrivals.lines():
        if not line.startswith(b"data: {"):
            continue
        text, tokens = _read(json.loads(line[6:]))
        seen.tokens = tokens or seen.tokens
        if not text:
            continue
        if seen.text:
            seen.between.append(moment - last)
        else:
            seen.to_first = moment - begun
        last = moment
        seen.text += text
    if not seen.text:
        seen.to_first = arrivals.pieces[-1][0] - begun
    return seen


def _read(piece: Mapping[str, Any]) -> tuple[str, int]:
    """The text of a piece, and the tokens of the whole answer where the piece tells them."""
    if "error" in piece:
        raise RuntimeError(piece["error"]["message"])
    choice: Mapping[str, Any] = next(iter(piece.get("choices", ())), {})
    text = choice.get("text") or choice.get("delta", {}).get("content") or ""
    return text, (piece.get("usage") or {}).get("completion_tokens", 0)


async def load(
    url: str, path: str, bodies: Sequence[Mapping[str, Any]], *, clients: int, seconds: float
) -> tuple[list[tuple[int, Seen]], float]:
    """Let so many clients ask one question after another. Returns each question's number and
    answer, and the seconds until the last has ended.
    """
    begun = time.perf_counter()
    answers: list[tuple[int, Seen]] = []

    async def go_on(number: int) -> None:
        while time.perf_counter() - begun < seconds:
            question = number % len(bodies)
            answers.append((question, await stream(url, path, bodies[question])))
            number += clients

    await asyncio.gather(*(go_on(number) for number in range(clients)))
    return answers, time.perf_counter() - begun


def percentiles(seconds: Sequence[float]) -> str:
    """The median and the 95th of a hundred, in milliseconds."""
    if not seconds:
        return "none"
    half, high = percentile(seconds, 50), percentile(seconds, 95)
    return f"{1000 * half:.0f} / {1000 * high:.0f}"


def percentile(seconds: Sequence[float], share: int) -> float:
    """The value below which so many of a hundred lie."""
    return sorted(seconds)[share * (len(seconds) - 1) // 100]
