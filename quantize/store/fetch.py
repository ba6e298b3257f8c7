"""Fetch a file of a repository: begun where an earlier run stopped, and checked when it is whole.

A connection that breaks is made anew, from the byte at which it broke. Bytes that do not have the
published sum are fetched once more, and never used.
"""

import os
import re
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO

from calculator.checkpoint.hub import open_url
from calculator.errors import HubUnreachableError, SourceError
from calculator.units import human_bytes
from quantize.store.repository import Hash, HubFile

BLOCK_BYTES = 1 << 20
BREAKS = 6
"""A connection may break so many times without a byte in between."""
PARTIAL = ".part"
"""The ending of a file that is not whole."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Arrived = Callable[[int], None]
"""Is called with the bytes of the file that are there."""


class FetchStoppedError(Exception):
    """The run ends: what is fetched by now is kept for the next."""


def fetch_file(
    file: HubFile,
    url: str,
    target: Path,
    *,
    arrived: Arrived = lambda there: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Write a file of the Hub to `target`, which appears when it is whole and right.

    Raises SourceError, HubUnreachableError, FetchStoppedError, or OSError where it cannot be
    written.
    """
    partial = target.with_name(target.name + PARTIAL)
    for _ in range(2):
        digest = _receive(file, url, partial, arrived, is_stopped)
        if digest == file.published_sum:
            os.replace(partial, target)
            return
        partial.unlink()
    kind = "sha256" if file.sha256 else "git sum"
    raise SourceError(
        f"{url} was fetched twice, and its bytes are not those that were published: their {kind} "
        f"is {digest}, not {file.published_sum}"
    )


def _receive(
    file: HubFile,
    url: str,
    partial: Path,
    arrived: Arrived,
    is_stopped: Callable[[], bool],
) -> str:
    """Write all bytes of a file, and return their sum."""
    breaks = 0
    with partial.open("a+b") as stream:
        there, summed = _read_back(file, stream)
        while there < file.size:
            before = there
            try:
                for block in _blocks(url, there, file):
                    if is_stopped():
                        raise FetchStoppedError
                    stream.write(block)
                    summed.update(block)
                    there += len(block)
                    arrived(there)
                if there < file.size:
                    raise HubUnreachableError("the connection ended before the file")
            except HubUnreachableError as error:
                breaks = breaks + 1 if there == before else 0
                if breaks == BREAKS:
                    raise HubUnreachableError(
                        f"{url} broke off {BREAKS} times at {human_bytes(there)} of "
                        f"{human_bytes(file.size)}: {error}"
                    ) from None
                sleep(min(2.0**breaks - 1, 30.0))
        stream.flush()
        os.fsync(stream.fileno())
    return summed.hexdigest()


def _read_back(file: HubFile, stream: BinaryIO) -> tuple[int, Hash]:
    """Sum what an earlier run has fetched; the bytes of it, none where they are too many."""
    there, summed = stream.tell(), file.new_hash()
    if there > file.size:
        stream.truncate(0)
        return 0, summed
    stream.seek(0)
    while block := stream.read(BLOCK_BYTES):
        summed.update(block)
    return there, summed


def _blocks(url: str, start: int, file: HubFile) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` on. Raises SourceError or HubUnreachableError."""
    answer = open_url(url, {"Range": f"bytes={start}-"} if start else {})
    if answer is None:
        raise SourceError(f"{url} is not there any more")
    with answer:
        if answer.status == 206:
            _refuse_other_range(answer.headers.get("Content-Range", ""), url, start, file)
        # A server that does not know ranges sends the file from its beginning.
        skipped = start if answer.status == 200 else 0
        left = file.size - start
        while left and (block := _read(answer, url, min(BLOCK_BYTES, skipped or left))):
            if skipped:
                skipped -= len(block)
            else:
                left -= len(block)
                yield block


def _refuse_other_range(given: str, url: str, start: int, file: HubFile) -> None:
    span = _RANGE.fullmatch(given)
    if not span or (int(span[1]), int(span[2])) != (start, file.size):
        raise SourceError(
            f"{url}: bytes from {start} of {file.size} were asked for, and {given!r:.60} came"
        )


def _read(answer: Any, url: str, count: int) -> bytes:
    try:
        block: bytes = answer.read(count)
    except (OSError, HTTPException) as error:
        raise HubUnreachableError(f"{url} broke off: {error}") from None
    return block
