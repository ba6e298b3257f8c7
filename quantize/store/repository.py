"""Ask the Hub what a repository holds: its commit, and the size and checksum of every file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, Self

from calculator.checkpoint.hub import TOKEN, open_url, refuse_offline, repository_url
from calculator.errors import CheckpointError, SourceError
from calculator.json_files import read_json_object
from glm4q.weights.sources import FETCHED

LARGEST_LISTING = 1 << 24
"""The Hub describes a file in some hundred bytes, and no repository of a model has so many."""


class Hash(Protocol):
    """A sum that grows with the bytes that it is given, as those of hashlib do."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class HubFile:
    """One file of a repository, as the Hub describes it."""

    name: str
    size: int
    sha256: str | None
    """The checksum of a file in the Hub's large storage (LFS); None for any other file."""
    git_sha1: str | None
    """Git's own sum of any other file."""

    @property
    def published_sum(self) -> str:
        """The sum that the bytes of the file must have."""
        return self.sha256 or self.git_sha1 or ""

    def new_hash(self) -> Hash:
        """Return the hash that computes `published_sum` from the bytes of the file."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode())


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, and those of its files that we read."""

    name: str
    commit: str
    files: Mapping[str, HubFile]

    @classmethod
    def ask(cls, name: str) -> Self:
        """Ask the Hub. Raises SourceError or HubUnreachableError."""
        refuse_offline(name)
        url = repository_url(name)
        answer = open_url(url, {})
        if answer is None:
            raise SourceError(f"{name} is not on the Hub (or {TOKEN})")
        try:
            with answer:
                text = answer.read(LARGEST_LISTING)
            listing = json.loads(text)
            files = {file.name: file for file in map(_read_file, listing["siblings"]) if file}
            commit = listing["sha"]
        except (OSError, HTTPException) as error:
            raise SourceError(f"{url} cannot be fetched: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SourceError(f"{url} does not answer as the Hub does") from None
        if not isinstance(commit, str) or not commit.isalnum():
            raise SourceError(f"{url} names no commit: {commit!r:.60}")
        return cls(name, commit, files)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` has kept. Raises CheckpointError."""
        kept = read_json_object(path, limit=LARGEST_LISTING, error=CheckpointError)
        try:
            files = {name: HubFile(**file) for name, file in kept["files"].items()}
            return cls(str(kept["name"]), str(kept["commit"]), files)
        except (KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"{path} is damaged; delete {path.parent} to begin anew"
            ) from None

    def write(self, path: Path) -> None:
        """Keep it in a file, so that a later run goes on with the same commit."""
        files = {name: asdict(file) for name, file in self.files.items()}
        text = json.dumps({"name": self.name, "commit": self.commit, "files": files}, indent=1)
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)

    def companions(self) -> Iterator[HubFile]:
        """Yield the small files beside the weights: config, tokenizer, template, licence."""
        for file in self.files.values():
            if not file.name.endswith(".safetensors"):
                yield file

    def weight_file(self, name: str) -> HubFile:
        """Return one file of weights. Raises SourceError where the Hub does not list it."""
        if name not in self.files:
            raise SourceError(f"{self.name} has no {name} at commit {self.commit}")
        return self.files[name]


def _read_file(entry: Mapping[str, Any]) -> HubFile | None:
    """Read one entry of the listing; None for a file that is not fetched.

    Files in folders are other copies of a model, and pickles and code are never fetched.
    """
    name = entry["rfilename"]
    if "/" in name or not any(fnmatchcase(name, pattern) for pattern in FETCHED):
        return None
    large = entry.get("lfs")
    size = int(large["size"] if large else entry["size"])
    return HubFile(name, size, large["sha256"] if large else None, entry.get("blobId"))
