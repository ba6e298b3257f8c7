"""A local server that speaks the Hub's protocol, and goes wrong where a test asks for it.

The Hub answers /api/models/OWNER/NAME with the commit and each file's size and sums. A small file
comes from /OWNER/NAME/resolve/REVISION/FILE itself; for a large one that address redirects to a
storage server, which knows ranges. A test asks it with huggingface_hub as well.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running server, its repositories, what it was asked, and what goes wrong."""

    root: Path
    """OWNER/NAME/FILE."""
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """"GET path" or "GET path bytes=7-" of each request."""
    tokens: list[str | None] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes that were sent of each file."""
    breaks: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes the next connections for a file break."""
    wrong: dict[str, int] = field(default_factory=dict)
    """How many times a file comes with a wrong byte."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """What the next requests are answered with, before anything else."""
    ranges: bool = True
    token: str | None = None
    """Where it is set, requests without it are answered with 401."""

    def repository(self, name: str, checkpoint: Path) -> Path:
        """Publish the files of a checkpoint."""
        directory = self.root / name
        directory.mkdir(parents=True)
        for file in checkpoint.iterdir():
            (directory / file.name).symlink_to(file.resolve())
        return directory


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        hub.asked.append(f"{self.command} {path}{f' {asked}' if asked else ''}")
        given = self.headers.get("Authorization")
        hub.tokens.append(given)
        if hub.statuses:
            return self._send(*hub.statuses.pop(0))
        if path.startswith("/storage/"):
            return self._send_file(hub.root / path.removeprefix("/storage/"), asked)
        if hub.token and given != f"Bearer {hub.token}":
            return self._send(401, {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/"):
            return self._describe(*path.removeprefix("/api/models/").split("/")[:3])
        parts = path.strip("/").split("/")
        if len(parts) < 5:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        owner, name, resolve, revision, *file = parts
        place = hub.root / owner / name / "/".join(file)
        if resolve != "resolve" or revision not in ("main", COMMIT) or not place.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        self._resolve(f"{owner}/{name}/{'/'.join(file)}", place, asked)

    def _resolve(self, path: str, place: Path, asked: str | None) -> None:
        facts = {"X-Repo-Commit": COMMIT}
        if not _is_large(place):
            return self._send_file(place, asked, {**facts, "ETag": f'"{_git_sha1(place)}"'})
        linked = {"X-Linked-ETag": f'"{_sha256(place)}"', "X-Linked-Size": str(_size(place))}
        # Another name of this machine: the storage servers of the Hub are other hosts.
        storage = self.hub.address.replace("127.0.0.1", "localhost")
        location = f"{storage}/storage/{path}?signature=of-today"
        self._send(302, {**facts, **linked, "Location": location})

    def _describe(self, owner: str, name: str, kind: str = "revision") -> None:
        """Describe a repository as a whole, or list its files as the address /tree/ does."""
        directory = self.hub.root / owner / name
        if not directory.is_dir():
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        entries = [_sibling(file) for file in sorted(directory.iterdir())]
        described: Any = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": entries}
        if kind == "tree":
            described = [_tree_entry(entry) for entry in entries]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(described).encode())

    def _send_file(
        self, place: Path, asked: str | None, headers: dict[str, str] | None = None
    ) -> None:
        data, status, headers = place.read_bytes(), 200, dict(headers or {})
        total = len(data)
        if self.hub.wrong.get(place.name) and self.command == "GET" and len(data) > 1000:
            self.hub.wrong[place.name] -= not asked or asked.endswith("-")
            data = data[:-1] + bytes([data[-1] ^ 1])
        if asked and self.hub.ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1 if last else None]
            status = 206
            end = int(first) + len(data) - 1
            headers["Content-Range"] = f"bytes {first}-{end}/{total}"
        self._send(status, headers, data, place.name)

    def _send(
        self, status: int, headers: dict[str, str], data: bytes = b"", name: str = ""
    ) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = self.hub.breaks.get(name)
        if breaks and len(data) > 1000:
            data = data[: breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(data)
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(data)


def _sibling(file: Path) -> dict[str, Any]:
    entry = {"rfilename": file.name, "size": _size(file), "blobId": _git_sha1(file)}
    if not _is_large(file):
        return entry
    pointer = {"sha256": _sha256(file), "size": _size(file), "pointerSize": 134}
    return {**entry, "lfs": pointer}


def _tree_entry(entry: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "file", "path": entry["rfilename"], "size": entry["size"]}
    if large := entry.get("lfs"):
        listed["lfs"] = {**large, "oid": large["sha256"]}
    return {**listed, "oid": entry["blobId"]}


def _is_large(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _size(file: Path) -> int:
    return file.stat().st_size


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git_sha1(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@contextmanager
def running_hub(root: Path) -> Iterator[Hub]:
    """Serve the repositories under a directory until the block ends."""
    hub = Hub(root)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def set_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the Hub as HF_ENDPOINT does for a process that has not imported huggingface_hub."""
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
