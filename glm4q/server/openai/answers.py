"""Sends the answers of a request, whole or as a stream. A client that leaves ends them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm4q.server.errors import ApiError
from glm4q.server.openai.choices import Choice, Heading, Json, usage
from glm4q.server.reply import Finished, Reply
from glm4q.server.sending.events import event
from glm4q.server.sending.stream import Stream
from glm4q.server.service import Service, client_leaves

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Answers:
    """The choices of one request, each with the reply that it writes."""

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

    async def _pieces(self, *, wants_usage: bool) -> AsyncIterator[bytes]:
        first, *others = self.pairs
        try:
            async with aclosing(self._merged() if others else self._written(*first)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ApiError):
                        yield event(piece.body)
                        return
                    yield event(self.heading.chunk(piece))
            if wants_usage:
                yield event(self.heading.usage_chunk(self._usage()))
            yield DONE
        finally:  # also where the client has gone
            self._give_up()

    async def _merged(self) -> AsyncGenerator[Json | ApiError]:
        """Yield the pieces of all choices as they come."""
        pieces: asyncio.Queue[Json | ApiError | None] = asyncio.Queue()

        async def collect(choice: Choice, reply: Reply) -> None:
            async for piece in self._written(choice, reply):
                pieces.put_nowait(piece)
            pieces.put_nowait(None)

        tasks = [asyncio.create_task(collect(*pair)) for pair in self.pairs]
        left = len(tasks)
        try:
            while left:
                piece = await pieces.get()
                if piece is None:
                    left -= 1
                else:
                    yield piece
        finally:
            for task in tasks:
                task.cancel()

    async def _written(self, choice: Choice, reply: Reply) -> AsyncGenerator[Json | ApiError]:
        """Yield the pieces of one choice, or last why it fails."""
        for piece in choice.begin():
            yield piece
        async for part in reply.events():
            if not isinstance(part, Finished):
                for piece in choice.add(part):
                    yield piece
            elif part.reason in ("error", "cancelled"):
                yield self.service.failure(part.error)
            else:
                yield choice.end(part.reason)

    async def _read(self, choice: Choice, reply: Reply) -> Json:
        async for part in reply.events():
            if isinstance(part, Finished):
                if part.reason in ("error", "cancelled"):
                    raise self.service.failure(part.error)
                return choice.whole(part.reason)
            choice.add(part)
        raise self.service.failure(None)

    def _usage(self) -> Json:
        return usage(self.prompt_tokens, sum(reply.tokens for _, reply in self.pairs))

    def _give_up(self) -> None:
        self.service.give_up([reply for _, reply in self.pairs])
