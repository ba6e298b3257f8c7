"""Fetches a page over http or https, within bounds of time, size and redirects."""

import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Timer
from urllib.parse import quote, urljoin, urlsplit

from calculator.errors import ToolError
from glm4q.tools.browser.addresses import Permit, Resolve, checked_address, is_public, resolve

SECONDS = 15.0
MOST_BYTES = 4 << 20
"""Bytes of a page, as they come and as they are once decompressed."""
MOST_REDIRECTS = 5
PIECE = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
TEXT_TYPES = (
    *("text/html", "application/xhtml+xml", "text/plain", "text/markdown"),
    *("application/json", "text/xml", "application/xml"),
)
SAFE = "%/:=&?~#+!$,;'@()*[]"
"""Characters of a URL that stay as they are."""


@dataclass(frozen=True)
class Page:
    """What came, and from where in the end."""

    url: str
    content_type: str
    body: bytes
    charset: str | None

    @property
    def text(self) -> str:
        """The body as the server says that it is encoded."""
        try:
            return self.body.decode(self.charset or "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Fetcher:
    """Fetches pages from the addresses that are permitted."""

    resolve: Resolve = resolve
    permit: Permit = is_public
    seconds: float = SECONDS
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def fetch(self, url: str) -> Page:
        """Fetch a page, and follow its redirects: each goes through all checks anew.

        Raises ToolError.
        """
        until = time.monotonic() + self.seconds
        for _ in range(MOST_REDIRECTS + 1):
            try:
                page = self._one(url, until)
            except TimeoutError:
                raise ToolError(f"{url} took more than {self.seconds:g} seconds") from None
            except (OSError, http.client.HTTPException, zlib.error) as error:
                if time.monotonic() >= until:  # the connection was ended under whoever read it
                    raise ToolError(f"{url} took more than {self.seconds:g} seconds") from None
                problem = " ".join(str(error).split()) or type(error).__name__
                raise ToolError(f"{url} cannot be fetched: {problem}") from None
            if isinstance(page, Page):
                return page
            url = page
        raise ToolError(f"{url}: more than {MOST_REDIRECTS} redirects")

    def _one(self, url: str, until: float) -> Page | str:
        """Fetch one address: a page, or where it redirects to."""
        secure, host, port, path = _parts(url)
        address = checked_address(host, port, self.resolve, self.permit)
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = 443 if secure else 80  # left out of the header Host
        with ExitStack() as opened:
            connected = opened.enter_context(self._connected(address, host, port, secure, until))
            connection.sock = connected
            opened.callback(connection.close)
            headers = {"Accept-Encoding": "gzip", "User-Agent": "glm4q", "Accept": "text/html, */*"}
            connection.request("GET", path, headers=headers)
            response = opened.enter_context(closing(connection.getresponse()))
            if response.status in REDIRECTS and (target := response.headers["Location"]):
                return urljoin(url, target)
            if response.status != 200:
                raise ToolError(f"{url} answers with status {response.status}")
            kind = response.headers.get_content_type()
            if kind not in TEXT_TYPES:
                raise ToolError(f"{url} is of the type {kind}, and only text can be read")
            body = _read(response, url)
            _left(until)  # a body without a length ends where the connection was ended
            return Page(url, kind, body, response.headers.get_content_charset())

    @contextmanager
    def _connected(
        self, address: str, host: str, port: int, secure: bool, until: float
    ) -> Iterator[socket.socket]:
        """Connect, and end the connection at a time, whatever it is used for then.

        A timeout of the socket would not do: a server that sends a byte now and then, of its
        handshake, its headers or its page, begins it anew each time.
        """
        connected = socket.create_connection((address, port), _left(until))
        if secure:
            connected = self.tls.wrap_socket(
                connected, server_hostname=host, do_handshake_on_connect=False
            )
        with closing(connected), _ending(connected, until):
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            yield connected


def _parts(url: str) -> tuple[bool, str, int, str]:
    """Return whether it is https, the host, the port, and the path with the query."""
    try:
        parts = urlsplit(quote(url.strip(), safe=SAFE))
        host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
        port = parts.port
    except (ValueError, UnicodeError):
        raise ToolError(f"{url[:200]} is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ToolError(f"{url[:200]} must be a URL that begins with http:// or https://")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return secure, host, port or (443 if secure else 80), path


@contextmanager
def _ending(connected: socket.socket, until: float) -> Iterator[None]:
    """End a connection at a time, or leave it as it is where the `with` block ends before."""

    def end() -> None:
        with suppress(OSError):
            # The method of plain sockets: that of TLS would first forget that it is TLS, and then
            # whoever reads just now would take the rest for text.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = Timer(_left(until), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    """Read the body and decompress it; reading stops where either is too long.

    Raises IncompleteRead where the connection ended before it.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity", ""):
        raise ToolError(f"{url} is compressed by {encoding}, which was not asked for")
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body, came = bytearray(), 0
    while piece := response.read1(PIECE):
        came += len(piece)
        body += inflate.decompress(piece, MOST_BYTES + 1 - len(body)) if inflate else piece
        if max(came, len(body)) > MOST_BYTES:
            raise ToolError(f"{url} has more than {MOST_BYTES >> 20} MiB")
    if response.length or (inflate and came and not inflate.eof):
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)
