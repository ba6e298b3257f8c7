"""An answer on the screen while it streams: in styles, wrapped between words, each character once.

Nothing is drawn again, so the cursor is never hidden or moved: a window that changes its size, a
process that is killed, or a terminal without such commands shows the same text.
"""

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from glm4q.terminal.screen.markdown import MarkdownStyler, Span

THINKING = "dim italic"

CONTROL_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
CONTROL_PICTURES |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}
"""What a model writes must not move the cursor or change colours: such characters are shown."""

PIECES = re.compile(r"\n|[^\S\n]+|\S+")


class AnswerWriter:
    """Writes one answer to a console. `close` ends it, whatever happened meanwhile."""

    def __init__(self, console: Console, *, raw: bool = False) -> None:
        """raw: neither styles nor wrapping, only the answer's characters."""
        self._console = console
        self._styler = None if raw else MarkdownStyler()
        self._wraps = console.is_terminal and not raw
        self._out = Text()
        self._column = 0
        self._space: list[Span] = []  # what stands before the word
        self._word: list[Span] = []

    def write(self, piece: str) -> None:
        """Show a piece of the answer."""
        piece = piece.translate(CONTROL_PICTURES)
        self._show([Span(piece)] if self._styler is None else self._styler.feed(piece))

    def think(self, piece: str) -> None:
        """Show a piece of what the model thinks before it answers."""
        self._show([Span(piece.translate(CONTROL_PICTURES), THINKING)])

    def end_thinking(self) -> None:
        """Leave a blank line before the answer."""
        self._end_word()
        self._show([Span("\n\n" if self._column else "\n")])

    def close(self) -> None:
        """Show the rest, and end the line."""
        if self._styler is not None:
            self._show(self._styler.finish())
        self._end_word()
        if self._column:
            self._put(Span("\n"))
        self._flush()

    def _show(self, spans: list[Span]) -> None:
        for span in spans:
            for piece in PIECES.findall(span.text):
                self._take(Span(piece, span.style))
        if not self._wraps:
            self._end_word()
        self._flush()

    def _take(self, piece: Span) -> None:
        """Return a line's end, white space, or a part of a word."""
        if piece.text.isspace():
            self._end_word()
            if piece.text == "\n":
                self._put(piece)
            else:
                self._space.append(piece)
        elif cell_len(piece.text) == len(piece.text):
            self._word.append(piece)
        else:  # a script of wide characters has no spaces: a line may end behind each of them
            for character in piece.text:
                self._word.append(Span(character, piece.style))
                self._end_word()

    def _end_word(self) -> None:
        """Put what waits on this line, or on the next where it does not fit."""
        space, word = self._space, self._word
        self._space, self._word = [], []
        needed = sum(cell_len(part.text) for part in (*space, *word))
        full = self._column + needed > self._console.width
        if full and word and self._column and self._wraps and self._is_prose():
            space = [Span("\n")]
        for part in (*space, *word):
            self._put(part)

    def _is_prose(self) -> bool:
        return self._styler is None or not self._styler.in_code

    def _put(self, span: Span) -> None:
        if not span.text:
            return
        self._out.append(span.text, span.style or None)
        self._column = 0 if span.text == "\n" else self._column + cell_len(span.text)

    def _flush(self) -> None:
        if self._out:
            self._console.print(self._out, end="", soft_wrap=True, highlight=False)
            self._out = Text()
