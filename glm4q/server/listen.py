"""The socket of the server, who may reach it, and its life until it is told to end."""

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from calculator.errors import OptionError
from glm4q.server.connection import Connection
from glm4q.server.guard import LOOPBACK, Rules
from glm4q.server.worker import Worker

DRAIN_SECONDS = 120
"""How long answers that run may go on once the server is told to end."""
KEEP_ALIVE_SECONDS = 75
"""How long a connection may stay open without a request."""
SWITCH_SECONDS = 0.0005
"""How long the thread that writes answers may keep Python's lock while the model's thread wants it.
Python's own 5 ms are a third of a step of a small model.
"""
MAX_KEY_BYTES = 4096
SEND_BUFFER_BYTES = 128 << 10
"""What the system keeps of a stream that is not read. Left to itself it takes megabytes, and a
client that never reads would be noticed only thousands of tokens later."""


def rules_for(host: str, key_file: Path | None, origins: Collection[str]) -> Rules:
    """Who may ask. Raises OptionError where other machines could ask without a key."""
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise OptionError(f"cors origin must be like http://localhost:3000, not {origin}")
    key = None if key_file is None else read_key(key_file)
    if is_loopback(host):
        return Rules(hosts=LOOPBACK | {host.lower()}, origins=tuple(origins), api_key=key)
    if key is None:
        raise OptionError(f"host {host} lets other machines ask: give a key with --api-key-file")
    return Rules(hosts=None, origins=tuple(origins), api_key=key)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(path: Path) -> str:
    """Read the one line of a file that is the API key. Raises OptionError."""
    try:
        with path.open("rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip().decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise OptionError(f"api key file {path} cannot be read as one line of ASCII") from None
    if not 8 <= len(key) <= MAX_KEY_BYTES or not key.isprintable() or " " in key:
        raise OptionError(f"api key file {path} must have one key of at least 8 characters")
    return key


def listen(host: str, port: int) -> socket.socket:
    """Open the socket before anything long is done. Raises OptionError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        number = error.errno or 0  # that of a name which is not known is negative
        reason = os.strerror(number).lower() if number > 0 else str(error).lower()
        raise OptionError(
            f"port {port} of {host} cannot be listened on: {reason}; --port names another"
        ) from None
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
    )  # connections have it
    return listener


def address(listener: socket.socket) -> str:
    """The URL of the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: ASGIApp, listener: socket.socket, worker: Worker) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no more requests, and end those that run."""
    AppStatus.disable_automatic_graceful_drain()  # streams end by themselves, not by a signal
    sys.setswitchinterval(SWITCH_SECONDS)
    worker.start()
    with _signals_end_quietly():
        uvicorn.Server(configure(app)).run(sockets=[listener])
    worker.stop()


def configure(app: ASGIApp, silent_seconds: int = KEEP_ALIVE_SECONDS) -> uvicorn.Config:
    """Set what HTTP's part of the server does."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # that of operation/log.py
        log_level="warning",  # no line for each request: paths and addresses are nobody's business
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=silent_seconds,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Let uvicorn, which raises a signal again when it has ended, raise one that does nothing."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
