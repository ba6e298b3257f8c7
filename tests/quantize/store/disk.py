"""Measures the disk that a directory takes while something runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantize.store.entries import disk_bytes


@contextmanager
def watched(directory: Path) -> Iterator[list[int]]:
    """The most bytes that a directory took of the disk while the block ran."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            try:
                most[0] = max(most[0], disk_bytes(directory))
            except FileNotFoundError:
                continue  # a file went while it was looked at

    thread = threading.Thread(target=watch)
    thread.start()
    yield most
    over.set()
    thread.join()
