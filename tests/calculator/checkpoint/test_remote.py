"""A repository on a hub is described by ranges of its files; a local server plays the hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from huggingface_hub import constants

from calculator.checkpoint.remote import open_remote
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import (
    CheckpointError,
    ConfigError,
    HubUnreachableError,
    SourceError,
)
from calculator.model.presets import find_preset
from calculator.questions.subject import Subject, find_subject


class Hub(SimpleHTTPRequestHandler):
    """Serves files under owner/name/resolve/main, and ranges of them."""

    served_bytes = 0
    tokens: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        Hub.tokens.append(self.headers.get("Authorization"))
        if elsewhere := getattr(self.server, "elsewhere", None):
            self.send_response(302)
            self.send_header("Location", f"{elsewhere}{self.path}")
            self.end_headers()
            return
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
    assert remote.formats == local.formats
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


@pytest.fixture
def rules(hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As HF_ENDPOINT, HF_TOKEN and HF_HUB_CACHE set them before huggingface_hub is imported."""
    set_endpoint(address(hub), monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    Hub.tokens.clear()
    return tmp_path / "cache"


def set_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def ask(repository: str) -> Subject:
    return find_subject(repository, weights=None, group_size=None, lm_head=None)


def test_the_environment_names_the_endpoint_and_the_token(
    rules: Path, repository: Path, hub: ThreadingHTTPServer
) -> None:
    """In a process of its own: huggingface_hub reads the environment once."""
    hub_settings = {"HF_ENDPOINT": address(hub), "HF_TOKEN": "secret", "HF_HUB_CACHE": str(rules)}
    ran = subprocess.run(
        [sys.executable, "-m", "glm4q", "calc", "owner/tiny"],
        env={**os.environ, **hub_settings, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "owner/tiny" in ran.stdout
    assert set(Hub.tokens) == {"Bearer secret"}


def test_the_token_stays_with_the_host_that_it_is_for(
    rules: Path, repository: Path, hub: ThreadingHTTPServer
) -> None:
    """As the Hub sends a client to its storage servers."""
    storage = ThreadingHTTPServer(("127.0.0.1", 0), hub.RequestHandlerClass)
    thread = Thread(target=storage.serve_forever)
    thread.start()
    hub.elsewhere = address(storage)  # type: ignore[attr-defined]
    try:
        assert ask("owner/tiny").source == "headers"
    finally:
        storage.shutdown()
        thread.join()
        storage.server_close()
    assert Hub.tokens[:2] == ["Bearer secret", None]


def test_the_local_cache_is_asked_first_and_alone_when_offline(
    rules: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="owner/tiny is not whole in the local cache"):
        ask("owner/tiny")
    cached = rules / "models--owner--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    shutil.copytree(checkpoint, cached / "snapshots" / ("0" * 40))
    assert ask("owner/tiny").name == "owner/tiny"
    assert Hub.tokens == []


@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-hf", "GLM-Z1-9B-0414"])
def test_a_preset_stands_in_where_there_is_no_network(
    name: str, rules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    subject = ask(f"THUDM/{name}")
    assert subject.config == find_preset(name.removesuffix("-hf"))
    assert "the preset of that name is used" in caplog.text
    with pytest.raises(HubUnreachableError):
        ask("THUDM/glm-4-9b-novel")
