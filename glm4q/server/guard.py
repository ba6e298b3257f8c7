"""What stands before every request: the Host and the Origin, the API key, the size of the body."""

import asyncio
import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm4q.server.errors import ApiError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = ("/health", "/")
"""What needs no key: whether the server lives, and the page, which asks for the key."""
OPEN_FILES = "/page/"
"""The files of the page, which are the same on every machine."""
MAX_BODY_BYTES = 8 << 20
MAX_BODY_SECONDS = 60.0


@dataclass(frozen=True)
class Rules:
    """Who may ask."""

    hosts: frozenset[str] | None = LOOPBACK
    """Names by which the server may be called; None, where a key is needed, is any.

    A page whose name is made to mean this machine (DNS rebinding) sends its own name as Host.
    """
    origins: Collection[str] = ()
    """Other sites whose pages may ask."""
    api_key: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    max_body_seconds: float = MAX_BODY_SECONDS
    """How long a body may take to come; a client that sends none would wait for ever."""


class Guard:
    """Refuses requests before anything of them is read."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope["path"], headers)
        except ApiError as error:
            await _refuse(error, scope["path"], send)
            return
        await self._app(scope, self._limited(receive), send)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._rules.hosts is not None and _hostname(host) not in self._rules.hosts:
            raise ApiError(403, "the Host header names another machine than this server's")
        origin = headers.get("origin")
        # A page from here has the Origin that its own Host says.
        if origin is not None and origin not in (*self._rules.origins, f"http://{host}"):
            raise ApiError(403, "pages of this origin may not ask (--cors-origin allows one)")
        if self._rules.api_key is not None and not _is_open(path) and not self._has_key(headers):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._rules.max_body_bytes:
            raise self._too_long()

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        expected = (self._rules.api_key or "").encode()
        return hmac.compare_digest(given.strip().encode(), expected)

    def _limited(self, receive: Receive) -> Receive:
        """Count the bytes of a body that does not say its length, and the time that it takes."""
        read, whole = 0, False
        end = asyncio.get_running_loop().time() + self._rules.max_body_seconds

        async def limited() -> Message:
            nonlocal read, whole
            try:
                # Behind a body comes only the news that the client has gone, whenever that is.
                async with asyncio.timeout_at(None if whole else end):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._rules.max_body_bytes:
                raise self._too_long()
            return message

        return limited

    def _too_slow(self) -> ApiError:
        most = self._rules.max_body_seconds
        return ApiError(408, f"the body did not come in time: at most {most:g} s are waited for it")

    def _too_long(self) -> ApiError:
        most = self._rules.max_body_bytes
        return ApiError(413, f"the body is too long: at most {most:,} bytes are read")


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_FILES)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _refuse(error: ApiError, path: str, send: Send) -> None:
    body = json.dumps(error.body_at(path)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
