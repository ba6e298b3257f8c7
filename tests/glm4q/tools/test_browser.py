"""The browser against local servers: searches, pages, and all that it must not reach."""

import gzip
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from calculator.errors import ToolError
from glm4q.tools.browser.addresses import is_public
from glm4q.tools.browser.browser import browser_tools
from glm4q.tools.browser.fetch import MOST_BYTES, Fetcher
from glm4q.tools.functions import Tool, Toolbox

SENTENCE = "GPTQ quantizes the columns of a weight one after another and corrects the others. "
HTML = f"<html><head><title>About GPTQ</title></head><body><nav>Menu</nav><article><h1>GPTQ</h1>\
<p>{SENTENCE * 6}</p></article><script>evil()</script></body></html>"


class Pages(BaseHTTPRequestHandler):
    """Pages of a test, and a search engine."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        port = self.connection.getsockname()[1]
        results = [
            {"title": "GPTQ", "url": f"http://pages.test:{port}/page", "content": "A method."}
        ]
        if parts.path == "/search":
            asked = parse_qs(parts.query)
            kind = asked.get("time_range", ["ever"])[0]
            answer = {"results": [*results, {"title": kind, "url": "http://127.0.0.1/"}]}
            self._say("application/json", json.dumps(answer).encode())
        elif parts.path == "/page":
            self._say("text/html; charset=utf-8", gzip.compress(HTML.encode()), gzipped=True)
        elif parts.path == "/bomb":
            self._say("text/plain", gzip.compress(bytes(64 << 20)), gzipped=True)
        elif parts.path == "/large":
            self._say("text/plain", bytes(MOST_BYTES + 1))
        elif parts.path == "/image":
            self._say("image/png", b"PNG")
        elif parts.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", parts.path.removeprefix("/to/").replace("PORT", str(port)))
            self.end_headers()
        else:
            self.send_error(404)

    def _say(self, kind: str, body: bytes, *, gzipped: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if gzipped:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with suppress(OSError):  # the browser may have read enough
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def _serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with _serving() as number:
        yield number


NAMES = {"pages.test": ["127.0.0.1"], "inner.test": ["10.0.0.1"], "both.test": ["8.8.8.8", "::1"]}


def _resolve(host: str, port: int) -> list[str]:
    return NAMES.get(host, [host])


def _permit(address: str) -> bool:
    """The local server stands for the public network."""
    return address == "127.0.0.1" or is_public(address)


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(_resolve, _permit, seconds=5)


@pytest.fixture
def tools(port: int, fetcher: Fetcher) -> list[Tool]:
    return browser_tools(f"http://127.0.0.1:{port}", pages=fetcher)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


def test_glm4_searches_and_reads_in_its_own_words(tools: list[Tool]) -> None:
    toolbox = Toolbox(tools, ["simple_browser"])
    assert toolbox.offers == [{"type": "simple_browser"}]
    tool = tools[0].native
    assert tool is not None
    results = tool.run({"code": 'search("GPTQ", recency_days=7)'})
    assert results == " # 【0†GPTQ†pages.test】\nA method.\n # 【1†week†127.0.0.1】\n"
    page = tool.run({"code": "mclick([0, 5])"})
    assert page.startswith("[7†source]\nTITLE: GPTQ\nURL: http://pages.test")
    assert SENTENCE.strip() in page
    assert "evil" not in page
    assert page.endswith("error: the last search has no result 5")


def test_other_models_are_offered_three_functions(tools: list[Tool], port: int) -> None:
    toolbox = Toolbox(tools)
    assert toolbox.names == {"search", "mclick", "open_url"}
    named = {tool.name: tool for tool in tools}
    assert "【0†GPTQ" in named["search"].run({"query": "GPTQ"})
    assert SENTENCE.strip() in named["open_url"].run({"url": f"http://pages.test:{port}/page"})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("__import__('os')", "the browser has search, mclick and open_url, not __import__"),
        ("search(open('x'))", "write search"),
        ("1 + 1", "a line is no call"),
        ("search()", "query: Field required"),
    ],
)
def test_code_that_is_no_call_of_the_browser_is_not_run(
    tools: list[Tool], code: str, reason: str
) -> None:
    native = tools[0].native
    assert native is not None
    answer = native.run({"code": code})
    assert answer.startswith("error: ")
    assert reason in answer


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://inner.test/", "10.0.0.1, which is not of the public network"),
        ("http://both.test/", "::1, which is not of the public network"),
        ("http://[::1]/", "::1, which is not of the public network"),
        ("http://pages.test:PORT/to/http://inner.test/", "10.0.0.1, which is not"),
        ("http://pages.test:PORT/to/file:///etc/passwd", "must be a URL that begins with http"),
        ("http://pages.test:PORT/bomb", "more than 4 MiB"),
        ("http://pages.test:PORT/large", "more than 4 MiB"),
        ("http://pages.test:PORT/image", "of the type image/png"),
        ("http://pages.test:PORT/nowhere", "status 404"),
        ("ftp://pages.test/", "must be a URL that begins with http"),
        ("http://pages.test:99999/", "is no URL"),
    ],
)
def test_what_is_not_reached(fetcher: Fetcher, port: int, url: str, reason: str) -> None:
    with pytest.raises(ToolError) as refused:
        fetcher.fetch(url.replace("PORT", str(port)))
    assert reason in str(refused.value)


def test_redirects_have_an_end(fetcher: Fetcher, port: int) -> None:
    assert fetcher.fetch(f"http://pages.test:{port}/to//page").url.endswith("/page")
    loop = f"http://pages.test:{port}" + "/to/" * 6 + "/page"
    with pytest.raises(ToolError, match="more than 5 redirects"):
        fetcher.fetch(loop)


def test_the_connection_goes_to_the_address_that_was_checked(port: int) -> None:
    """A name that resolves to another address the second time is asked for once."""
    answers = iter([["127.0.0.1"]])
    fetcher = Fetcher(lambda host, port: next(answers), _permit)
    assert fetcher.fetch(f"http://pages.test:{port}/page").body
    assert next(answers, None) is None


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _certified(authority: trustme.CA, host: str) -> ssl.SSLContext:
    """What a server shows that an authority knows by this name."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    return tls


def _trusting(authority: trustme.CA, seconds: float = 5) -> Fetcher:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return Fetcher(_resolve, _permit, seconds, tls)


def test_a_page_is_read_over_tls(authority: trustme.CA) -> None:
    with _serving(_certified(authority, "pages.test")) as port:
        page = _trusting(authority).fetch(f"https://pages.test:{port}/page")
    assert SENTENCE in page.text


@pytest.mark.parametrize(
    ("trusted", "host", "reason"),
    [
        (False, "pages.test", "certificate verify failed: unable to get local issuer"),
        (True, "other.test", "Hostname mismatch, certificate is not valid for 'pages.test'"),
    ],
    ids=["nobody vouches for it", "of another name"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_certificate_that_proves_nothing_is_refused_in_one_line(
    authority: trustme.CA, fetcher: Fetcher, trusted: bool, host: str, reason: str
) -> None:
    browser = _trusting(authority) if trusted else fetcher
    with (
        _serving(_certified(authority, host)) as port,
        pytest.raises(ToolError) as refused,
    ):
        browser.fetch(f"https://pages.test:{port}/page")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
DRIPS = {
    "headers": b"HTTP/1.1 200 OK\r\nX-Endless: ",
    "body": HEAD + b"Content-Length: 1000\r\n\r\n",
    "body without a length": HEAD + b"\r\n",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "handshake": b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc",
}
"""What comes at once, and then a byte at a time: of a TLS record, if it is a handshake."""


@contextmanager
def _dripping(at_once: bytes) -> Iterator[int]:
    """Serve one connection as no server should."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(at_once)
                while True:
                    time.sleep(0.05)
                    connection.sendall(b"1")

        thread = Thread(target=drip)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("name", DRIPS)
def test_a_page_that_comes_byte_by_byte_has_no_more_time_than_another(name: str) -> None:
    fetcher = Fetcher(_resolve, _permit, seconds=0.4)
    scheme = "https" if name == "handshake" else "http"
    begun = time.monotonic()
    with _dripping(DRIPS[name]) as port, pytest.raises(ToolError, match=r"more than 0\.4 seconds"):
        fetcher.fetch(f"{scheme}://pages.test:{port}/")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "cut",
    [
        HEAD + b"Content-Length: 1000\r\n\r\nhalf of it",
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(HTML.encode())[:60],
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ],
    ids=["by its length", "gzip", "chunks"],
)
def test_a_page_whose_connection_ends_before_it_is_not_taken_for_whole(
    fetcher: Fetcher, cut: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(cut)

        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(ToolError, match="cannot be fetched: IncompleteRead"):
            fetcher.fetch(f"http://pages.test:{server.getsockname()[1]}/")
        thread.join(10)
