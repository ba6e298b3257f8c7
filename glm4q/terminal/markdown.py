"""Markdown in a terminal, rendered as it arrives.

Finished blocks are printed once and scroll away; only the block being written is drawn anew. So a
long answer costs no more to draw than its last paragraph.
"""

import re
from contextlib import ExitStack
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


class MarkdownStream(ExitStack):
    """Takes pieces of text; a context manager around one answer."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._text = ""
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        self.callback(self._finish)
        return super().__enter__()

    def _finish(self) -> None:
        self._live.update("", refresh=True)
        self._live.stop()
        if self._text.strip():
            self._console.print(Markdown(self._text))

    def write(self, piece: str) -> None:
        """Add text and draw what has changed."""
        self._text += piece
        finished = finished_blocks(self._text)
        if finished:
            self._console.print(Markdown(self._text[:finished]))
            self._console.print()
            self._text = self._text[finished:]
        self._live.update(Markdown(self._text), refresh=True)


def finished_blocks(text: str) -> int:
    """Count the characters, from the start, of blocks that no later text can change.

    Blocks end at a blank line outside a code fence, before a line that starts a block of its own:
    an indented line, or an item, would continue a list above it.
    """
    finished, place, fence, after_blank = 0, 0, "", False
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        mark = FENCE.match(line)
        if after_blank and not fence and line.strip() and not _continues_list(line):
            finished = place
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        after_blank = not line.strip()
        place += len(line)
    return finished


def _continues_list(line: str) -> bool:
    return line[0] in " \t" or re.match(r"([-*+]|\d+[.)])\s", line) is not None
