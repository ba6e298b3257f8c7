"""Sends the answers of a request, whole or as a stream of events, and gives up with the client."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm4q.server.errors import ApiError
from glm4q.server.openai.choices import Choice, Heading, Json, usage
from glm4q.server.reply import Finished, Reply
from glm4q.server.sending.stream import Stream
from glm4q.server.service import Service, client_leaves

DONE = "[DONE]"


@dataclass(frozen=True)
class Answers:
    """The choices of one request, each with the reply that it tells."""

    service: Service
    heading: Heading
    prompt_tokens: int
    pairs: Sequence[tuple[Choice, Reply]]

    def submit(self) -> None:
        """Queue them. Raises ApiError."""
        self.service.submit([reply for _, reply in self.pairs])

    async def whole(self, request: Request) -> Response:
        """Answer in one piece. A client that goes away frees its rows."""
        together = asyncio.gather(*(self._read(*pair) for pair in self.pairs))
        gone = asyncio.ensure_future(client_leaves(request))
        first: list[asyncio.Future[Any]] = [together, gone]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not together.done():
                return Response(status_code=499)  # nobody reads it
            return JSONResponse(self.heading.whole(together.result(), self._usage()))
        finally:
            gone.cancel()
            together.cancel()
            self._give_up()

    def stream(self, *, wants_usage: bool) -> Response:
        """Answer in pieces, with a comment where nothing comes for a while."""
        pieces, service = self._pieces(wants_usage=wants_usage), self.service
        return Stream(pieces, send_seconds=service.send_seconds, ping=service.ping_seconds)

    async def _pieces(self, *, wants_usage: bool) -> AsyncIterator[Json]:
        pieces: asyncio.Queue[Json | ApiError | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._write(*pair, pieces)) for pair in self.pairs]
        left = len(tasks)
        try:
            while left:
                piece = await pieces.get()
                if isinstance(piece, ApiError):
                    yield _event(piece.body)
                    return
                if piece is None:
                    left -= 1
                else:
                    yield _event(self.heading.chunk(piece))
            if wants_usage:
                yield _event(self.heading.usage_chunk(self._usage()))
            yield {"data": DONE}
        finally:  # also where the client has gone
            for task in tasks:
                task.cancel()
            self._give_up()

    async def _write(
        self, choice: Choice, reply: Reply, pieces: asyncio.Queue[Json | ApiError | None]
    ) -> None:
        for piece in choice.begin():
            pieces.put_nowait(piece)
        async for event in reply.events():
            if not isinstance(event, Finished):
                for piece in choice.add(event):
                    pieces.put_nowait(piece)
            elif event.reason in ("error", "cancelled"):
                pieces.put_nowait(self.service.failure(event.error))
            else:
                pieces.put_nowait(choice.end(event.reason))
        pieces.put_nowait(None)

    async def _read(self, choice: Choice, reply: Reply) -> Json:
        async for event in reply.events():
            if isinstance(event, Finished):
                if event.reason in ("error", "cancelled"):
                    raise self.service.failure(event.error)
                return choice.whole(event.reason)
            choice.add(event)
        raise self.service.failure(None)

    def _usage(self) -> Json:
        return usage(self.prompt_tokens, sum(reply.tokens for _, reply in self.pairs))

    def _give_up(self) -> None:
        self.service.give_up([reply for _, reply in self.pairs])


def _event(content: Json) -> Json:
    return {"data": json.dumps(content, ensure_ascii=False)}
