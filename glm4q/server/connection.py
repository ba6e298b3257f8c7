"""A connection that is closed where no request comes."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to waiting for a request.

    uvicorn waits for ever for the first request of a connection, and for each request whose first
    byte has come. So whoever opens connections and asks nothing would take all that the system
    allows one program, without a key.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_or_answer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_or_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_no_more()

    def _wait_or_answer(self) -> None:
        """Begin to wait where no request is being answered; more bytes give no more time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
