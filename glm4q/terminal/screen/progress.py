"""A line that says how far a long prompt has been read; it goes as the answer begins."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from rich.cells import set_cell_size
from rich.console import Console

PATIENCE = 1.0
"""Seconds without an answer before the line is shown."""

INTERVAL = 0.25

Item = TypeVar("Item")


def with_progress(
    items: Generator[Item], console: Console, read: Callable[[], tuple[int, int]]
) -> Generator[Item]:
    """Yield the items. Until the first one comes, show how many tokens of the prompt are read.

    read: returns the tokens that have been read and those to read, from another thread.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield from items
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(console, read, done), daemon=True)
    watcher.start()
    try:
        with closing(items):
            for item in items:
                if not done.is_set():
                    done.set()
                    watcher.join()
                yield item
    finally:
        done.set()
        watcher.join()


def _watch(console: Console, read: Callable[[], tuple[int, int]], done: threading.Event) -> None:
    begun = time.monotonic()
    shown = False
    wait = PATIENCE
    while not done.wait(wait):
        tokens, total = read()
        line = progress_line(tokens, total, time.monotonic() - begun)
        # Without colours: what is drawn again must be as wide as it looks.
        console.file.write(f"\r{set_cell_size(line, console.width - 1)}")
        console.file.flush()
        shown, wait = True, INTERVAL
    if shown:
        console.file.write(f"\r{' ' * (console.width - 1)}\r")
        console.file.flush()


def progress_line(tokens: int, total: int, seconds: float) -> str:
    """Say how far the prompt is read.

    >>> progress_line(2048, 8192, 4.0)
    'reading 2,048 of 8,192 tokens, 512 tokens/s, 12 s left'
    >>> progress_line(0, 8192, 1.0)
    'reading 0 of 8,192 tokens'
    """
    line = f"reading {tokens:,} of {total:,} tokens"
    if not tokens:
        return line
    speed = tokens / seconds
    return f"{line}, {speed:.0f} tokens/s, {(total - tokens) / speed:.0f} s left"
