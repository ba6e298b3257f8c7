"""A stream of events that ends where nobody reads it."""

import contextlib
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send


class Stream(EventSourceResponse):
    """Pieces of an answer, with a comment or an event where nothing comes for a while."""

    def __init__(self, content: Any, *, send_seconds: float, **settings: Any) -> None:
        super().__init__(content, sep="\n", send_timeout=send_seconds, **settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it. A client that does not read loses its connection, and its row is free."""
        with contextlib.suppress(SendTimeoutError):
            await super().__call__(scope, receive, send)
