"""Bring the shards of a source one or two ahead of the parts that need them, and drop them after.

A shard that is not there is a file of its true size which holds only its header: the same reader
reads both. So the disk never holds more than `limit` bytes of shards.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, Glm4qError
from calculator.model.architecture import EMBEDDING, Weight
from quantize.store.fetch import PARTIAL, FetchStoppedError, fetch_file
from quantize.store.repository import HubFile, Repository

WHOLE = ".whole"
"""The ending of the empty file which says that a shard's data are there and right."""

Fetched = Callable[[str, int, int], None]
"""Is called with a file's name, its bytes that are there, and its size."""


@dataclass(frozen=True)
class Schedule:
    """Which shards each part needs, and how many bytes of them lie on the disk at once."""

    needed: tuple[tuple[str, ...], ...]
    """The files of each part, by name."""
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, stored: StoredModel, parts: Iterable[list[Weight]]) -> "Schedule":
        """Return the schedule of a model whose weights are read part by part."""
        needed = [_files(stored, weights) for weights in parts]
        if stored.config.tie_word_embeddings:  # the checks at the end read the head again
            embedding = [each for each in stored.formats if each.name == EMBEDDING]
            needed[-1] = tuple(dict.fromkeys((*needed[-1], *_files(stored, embedding))))
        files = {header.file for header in stored.tensors.values()}
        return cls(tuple(needed), {file.name: file.stat().st_size for file in files})

    @classmethod
    def whole(cls, stored: StoredModel) -> "Schedule":
        """Return the schedule of a model all of whose files are needed at once."""
        sizes = {header.file.name: header.file.stat().st_size for header in stored.tensors.values()}
        return cls((tuple(sorted(sizes)),), sizes)

    @property
    def order(self) -> tuple[str, ...]:
        """All shards that a part needs, in the order of their first use."""
        return tuple(dict.fromkeys(name for names in self.needed for name in names))

    @property
    def limit(self) -> int:
        """The most bytes at once: two shards in a row, or all that one moment needs."""
        pairs = [self.sizes[one] + self.sizes[other] for one, other in pairwise(self.order)]
        moments = [sum(map(self.sizes.__getitem__, self.alive(p))) for p in range(len(self.needed))]
        return max([*pairs, *moments])

    def alive(self, part: int) -> set[str]:
        """Return the shards that are needed by this part, or by one before it and one behind it."""
        before = {name for names in self.needed[: part + 1] for name in names}
        return before & self.needed_from(part)

    def needed_from(self, part: int) -> set[str]:
        """Return the shards that this part or a later one needs."""
        return {name for names in self.needed[part:] for name in names}


def _files(stored: StoredModel, weights: Iterable[Weight]) -> tuple[str, ...]:
    names = (
        stored.part(piece, weight.name.rpartition(".")[2]).file.name
        for weight in weights
        for piece in stored.pieces(weight)
    )
    return tuple(sorted(set(names)))


class ShardSupply:
    """Fetches shards in a thread of its own. `close` ends it, also in the middle of a shard."""

    def __init__(
        self,
        directory: Path,
        repository: Repository,
        schedule: Schedule,
        parts: list[list[Weight]],
        url_of: Callable[[str], str],
        *,
        keep: bool = False,
        fetched: Fetched = lambda name, there, size: None,
    ) -> None:
        """keep: leave every shard on the disk."""
        self._directory, self._repository, self._schedule = directory, repository, schedule
        self._part_of = {weights[0].name: number for number, weights in enumerate(parts)}
        self._url_of, self._keep, self._fetched = url_of, keep, fetched
        self._changed = threading.Condition()
        self._on_disk = {name for name in schedule.order if self._marker(name).exists()}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._closed = False

    def stamps(self) -> Mapping[str, Any]:
        """Return the commit, and the published sum of each shard."""
        files = self._repository.files
        sums = {name: files[name].published_sum for name in sorted(self._schedule.order)}
        return {"repository": self._repository.name, "commit": self._repository.commit, **sums}

    def bring(self, weights: list[Weight]) -> None:
        """Wait until the part's shards are there. Raises what kept one from coming."""
        part = self._part_of[weights[0].name]
        self._drop_all_but(self._schedule.needed_from(part))
        if self._thread is None:
            self._begin(part)
        with self._changed:
            while not self._on_disk.issuperset(self._schedule.needed[part]):
                if self._error:
                    raise self._error
                # A wait without a limit would not be ended by Ctrl-C on every system.
                self._changed.wait(1.0)

    def bring_all(self) -> None:
        """Wait until every shard is there."""
        self._begin(0)
        assert self._thread
        while self._thread.is_alive():
            self._thread.join(1.0)
        if self._error:
            raise self._error

    def drop(self, weights: list[Weight]) -> None:
        """Delete the data of shards that no later part needs."""
        self._drop_all_but(self._schedule.needed_from(self._part_of[weights[0].name] + 1))

    def close(self) -> None:
        """Stop fetching. What has come of a shard is kept for a later run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(1.0)

    def _begin(self, part: int) -> None:
        needed = self._schedule.needed_from(part)
        order = [name for name in self._schedule.order if name in needed]
        # Shards that another run has left ahead of a gap would take the room of those in the gap.
        self._drop_all_but(set(takewhile(self._on_disk.__contains__, order)))
        queue = [name for name in order if name not in self._on_disk]
        for name in set(self._schedule.sizes) - set(queue[:1]):
            (self._directory / f"{name}{PARTIAL}").unlink(missing_ok=True)
        # A daemon: a connection that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, args=(queue,), daemon=True)
        self._thread.start()

    def _run(self, queue: list[str]) -> None:
        try:
            for name in queue:
                self._wait_for_room(name)
                self._fetch(self._repository.weight_file(name))
        except FetchStoppedError:
            pass
        except (Glm4qError, OSError) as error:
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _wait_for_room(self, name: str) -> None:
        sizes = self._schedule.sizes
        with self._changed:
            while not self._closed and not self._keep:
                taken = sum(sizes[each] for each in self._on_disk)
                if taken + sizes[name] <= self._schedule.limit:
                    break
                self._changed.wait()
        if self._closed:
            raise FetchStoppedError

    def _fetch(self, file: HubFile) -> None:
        target = self._directory / file.name
        known = _header(target)
        fetch_file(
            file,
            self._url_of(file.name),
            target,
            arrived=lambda there: self._fetched(file.name, there, file.size),
            is_stopped=lambda: self._closed,
        )
        if _header(target) != known:
            raise CheckpointError(f"{target} has another header than the Hub sent before")
        self._marker(file.name).touch()
        with self._changed:
            self._on_disk.add(file.name)
            self._changed.notify_all()

    def _drop_all_but(self, needed: set[str]) -> None:
        if self._keep:
            return
        with self._changed:
            for name in self._on_disk - needed:
                self._marker(name).unlink()
                _empty(self._directory / name)
                self._on_disk.discard(name)
            self._changed.notify_all()

    def _marker(self, name: str) -> Path:
        return self._directory / f".{name}{WHOLE}"


def _empty(file: Path) -> None:
    """Replace a shard by its header and a hole of the size of its data."""
    hollow = file.with_suffix(".hollow")
    with hollow.open("wb") as stream:
        stream.write(_header(file))
        stream.truncate(file.stat().st_size)
    os.replace(hollow, file)


def _header(file: Path) -> bytes:
    """Return the header of a shard, with its length."""
    with file.open("rb") as stream:
        length = stream.read(8)
        return length + stream.read(int.from_bytes(length, "little"))
