"""A repository on a hub is described by ranges of its files; a local server plays the hub."""

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from calculator.checkpoint.remote import open_remote
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import CheckpointError, ConfigError, SourceError


class Hub(SimpleHTTPRequestHandler):
    """Serves files under owner/name/resolve/main, and ranges of them."""

    served_bytes = 0

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self.send_error(404)
        data, status = file.read_bytes(), 200
        total = len(data)
        asked = self.headers.get("Range")
        if asked and getattr(self.server, "ranges", True):
            first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
            data, status = data[first : last + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        Hub.served_bytes += len(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(tmp_path / "hub")))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repository(checkpoint: Path, tmp_path: Path) -> Path:
    """The files of owner/tiny on the hub."""
    return Path(
        shutil.copytree(checkpoint, tmp_path / "hub" / "owner" / "tiny" / "resolve" / "main")
    )


def address(hub: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{hub.server_port}"


def test_headers_are_enough(hub: ThreadingHTTPServer, repository: Path) -> None:
    Hub.served_bytes = 0
    remote, local = open_remote("owner/tiny", hub=address(hub)), StoredModel.open(repository)
    assert remote.config == local.config
    assert remote.formats() == local.formats()
    whole = (repository / SINGLE).stat().st_size
    header = 8 + int.from_bytes((repository / SINGLE).read_bytes()[:8], "little")
    config = (repository / "config.json").stat().st_size
    assert Hub.served_bytes == header + config < whole


def test_a_name_that_is_not_there(hub: ThreadingHTTPServer, repository: Path) -> None:
    with pytest.raises(SourceError, match=r"owner/other/resolve/main/config\.json is not there"):
        open_remote("owner/other", hub=address(hub))


def test_a_server_without_ranges_is_refused(hub: ThreadingHTTPServer, repository: Path) -> None:
    hub.ranges = False  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="does not answer range requests"):
        open_remote("owner/tiny", hub=address(hub))


def test_no_network() -> None:
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_remote("owner/tiny", hub="http://127.0.0.1:9")


def test_a_header_that_lies_is_refused(hub: ThreadingHTTPServer, repository: Path) -> None:
    data = (repository / SINGLE).read_bytes()
    (repository / SINGLE).write_bytes((2**60).to_bytes(8, "little") + data[8:])
    with pytest.raises(CheckpointError, match=r"claims a header of 1152921504606846976 bytes"):
        open_remote("owner/tiny", hub=address(hub))


@pytest.mark.parametrize("config", [b"{}", b"[", b" " * (2 << 20)], ids=["empty", "cut", "2 MiB"])
def test_a_config_that_is_none(hub: ThreadingHTTPServer, repository: Path, config: bytes) -> None:
    (repository / "config.json").write_bytes(config)
    with pytest.raises((ConfigError, SourceError)) as refused:
        open_remote("owner/tiny", hub=address(hub))
    assert "owner/tiny" in str(refused.value)
