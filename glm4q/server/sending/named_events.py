"""Sends one answer in an API whose streams have named events, such as Anthropic's messages."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm4q.chat.replies import ReplyEvent
from glm4q.server.errors import ApiError
from glm4q.server.reply import Finished, Reply
from glm4q.server.request.bodies import Json
from glm4q.server.sending.events import named_event
from glm4q.server.sending.stream import Stream
from glm4q.server.service import Service, client_leaves


class Writer(Protocol):
    """Writes one answer in the words of an API. An event is JSON whose type is its name."""

    @property
    def ping(self) -> Json | None:
        """The event that is sent where nothing comes for a while; None is a comment."""

    def begin(self) -> list[Json]:
        """The first events of a stream."""

    def add(self, event: ReplyEvent) -> list[Json]:
        """Keep what the model says, and return the events that say it."""

    def end(self, finished: Finished) -> list[Json]:
        """The last events of a stream."""

    def fail(self, error: ApiError) -> list[Json]:
        """The last events of a stream whose answer fails."""

    def whole(self, finished: Finished) -> Json:
        """All that was said, in one object."""


@dataclass(frozen=True)
class NamedEvents:
    """Sends the answer of a request, whole or as a stream. A client that leaves ends it."""

    service: Service
    reply: Reply
    writer: Writer

    async def answer(self, request: Request, *, stream: bool) -> Response:
        """Queue the answer and send it. Raises ApiError."""
        self.service.submit([self.reply])
        return self._stream() if stream else await self._whole(request)

    async def _whole(self, request: Request) -> Response:
        reading = asyncio.ensure_future(self._read())
        leaving = asyncio.ensure_future(client_leaves(request))
        first: list[asyncio.Future[Any]] = [reading, leaving]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                return Response(status_code=499)  # nobody reads it
            return JSONResponse(self.writer.whole(reading.result()))
        finally:
            leaving.cancel()
            reading.cancel()
            self.service.give_up([self.reply])

    async def _read(self) -> Finished:
        async for event in self.reply.events():
            if not isinstance(event, Finished):
                self.writer.add(event)
            elif event.reason in ("error", "cancelled"):
                raise self.service.failure(event.error)
            else:
                return event
        raise self.service.failure(None)

    def _stream(self) -> Response:
        ping = self.writer.ping
        return Stream(
            self._pieces(),
            send_seconds=self.service.send_seconds,
            ping=self.service.ping_seconds,
            ping_message_factory=None if ping is None else lambda: named_event(ping),
        )

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            for content in self.writer.begin():
                yield named_event(content)
            async for event in self.reply.events():
                for content in self._written(event):
                    yield named_event(content)
        finally:  # also where the client has gone
            self.service.give_up([self.reply])

    def _written(self, event: ReplyEvent | Finished) -> list[Json]:
        if not isinstance(event, Finished):
            return self.writer.add(event)
        if event.reason in ("error", "cancelled"):
            return self.writer.fail(self.service.failure(event.error))
        return self.writer.end(event)
