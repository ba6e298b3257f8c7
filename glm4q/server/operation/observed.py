"""Counts every request, gives it a name, and writes it to the log, whatever comes of it."""

import time
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm4q.server.job import REQUEST_ID
from glm4q.server.operation.log import log_event
from glm4q.server.operation.metrics import Metrics
from glm4q.server.service import new_id

ID_HEADERS = ("x-request-id", "request-id")
"""Where the clients of OpenAI and of Anthropic look for the name of a request."""


class Observed:
    """Stands before everything else that sees a request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, begun, status = new_id("req_"), time.perf_counter(), 500
        REQUEST_ID.set(request_id)

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name in ID_HEADERS:
                    headers[name] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - begun
            endpoint = self._endpoint(scope["path"])
            self._metrics.request(endpoint, status, seconds)
            fields = {"method": scope["method"], "endpoint": endpoint, "status": status}
            log_event("request", request=request_id, **fields, seconds=round(seconds, 4))

    def _endpoint(self, path: str) -> str:
        """Keep only paths that exist: others are a stranger's words, and without number."""
        if path in self._paths:
            return path
        return "/v1/models/{name}" if path.startswith("/v1/models/") else "other"
