"""Styles for Markdown while it streams: every character stays, and stays where it is.

A model's answer is shown as its source, so nothing is lost and code copies verbatim. A character
gets its style when it comes and is never drawn again: a token costs the same at the end of a long
answer as at its beginning. The state is the kind of the line and the marks that are open.
"""

import re
from dataclasses import dataclass

MARK, CODE, STRONG, EMPHASIS, HEADING, QUOTE = (
    "dim",
    "cyan",
    "bold",
    "italic",
    "bold underline",
    "italic",
)
"""Styles as rich names them."""

BLOCK_CHARACTERS = frozenset("#`~>-*+_.) \t0123456789")
"""A line's kind is known once a character comes that is none of these."""

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING_MARK = re.compile(r" {0,3}#{1,6}(?=[ \t])")
BLOCK_MARK = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)]|>)(?=[ \t])")
RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")

LONGEST_MARK = 3
"""The longest mark of emphasis; a longer run of `*` or `_` is text."""


@dataclass(frozen=True)
class Span:
    """Text in one style."""

    text: str
    style: str = ""


class MarkdownStyler:
    """Takes pieces of an answer and returns them in styles; only a line's first mark waits."""

    def __init__(self) -> None:
        self._text = ""  # what waits for its next character
        self._spans: list[Span] = []
        self._fence = ""
        self._begin_line()

    @property
    def in_code(self) -> bool:
        """Whether the line that is being written belongs to a block of code."""
        return bool(self._fence)

    def feed(self, piece: str) -> list[Span]:
        """Return the spans that are certain now."""
        self._text += piece
        return self._take(last=False)

    def finish(self) -> list[Span]:
        """Return the rest."""
        return self._take(last=True)

    def _take(self, *, last: bool) -> list[Span]:
        while self._text:
            if not (self._style_inline(last) if self._in_line else self._style_line_start(last)):
                break
        spans, self._spans = self._spans, []
        return spans

    def _begin_line(self) -> None:
        self._in_line, self._base, self._before = False, "", " "
        self._literal = False  # nothing in the line is a mark: code, or a rule
        self._open: list[str] = []
        self._code = ""  # the run of backticks that began a code span

    def _emit(self, size: int, style: str = "") -> None:
        """Move characters from what waits to what is certain."""
        text, self._text = self._text[:size], self._text[size:]
        self._before = text[-1]
        self._spans.append(Span(text, style or self._style()))

    def _style(self) -> str:
        styles = [self._base, CODE if self._code else ""]
        styles += [STRONG if len(mark) > 1 else EMPHASIS for mark in self._open]
        if any(len(mark) == LONGEST_MARK for mark in self._open):
            styles.append(EMPHASIS)
        return " ".join(dict.fromkeys(style for style in styles if style))

    def _style_line_start(self, last: bool) -> bool:
        """Style the marks that say what kind of line this is."""
        line, newline, _ = self._text.partition("\n")
        known = newline or last or any(each not in BLOCK_CHARACTERS for each in line)
        if not known:
            return False
        self._in_line = True
        fence = FENCE.match(line)
        if fence and (not self._fence or self._ends_fence(line, fence[1])):
            return self._style_fence(line, fence[1], whole=bool(newline) or last)
        if self._fence:
            self._base, self._literal = CODE, True
        elif RULE.match(line):
            self._base, self._literal = MARK, True
        elif mark := HEADING_MARK.match(line):
            self._emit(mark.end(), MARK)
            self._base = HEADING
        elif mark := BLOCK_MARK.match(line):
            self._base = QUOTE if mark[0].endswith(">") else ""
            self._emit(mark.end(), MARK)
        return True

    def _style_fence(self, line: str, mark: str, *, whole: bool) -> bool:
        """Style a line that begins or ends a block of code, once all of it is there."""
        if not whole:
            self._in_line = False
            return False
        self._fence = "" if self._fence else mark
        self._emit(len(line), MARK)
        return True

    def _ends_fence(self, line: str, mark: str) -> bool:
        return mark.startswith(self._fence) and not line.strip().strip(mark[0])

    def _style_inline(self, last: bool) -> bool:
        """Style one stretch of plain text, or one mark."""
        character = self._text[0]
        if character == "\n":
            self._spans.append(Span("\n"))
            self._text = self._text[1:]
            self._begin_line()
            return True
        if self._literal:
            self._emit(len(self._text.partition("\n")[0]))
            return True
        if character == "\\":
            if len(self._text) == 1 and not last:
                return False
            self._emit(1 if self._text[1:2] in ("", "\n") else 2)
            return True
        if character in "`*_":
            return self._style_mark(character, last)
        self._emit(len(re.match(r"[^\n\\`*_]+", self._text)[0]))  # type: ignore[index]
        return True

    def _style_mark(self, character: str, last: bool) -> bool:
        """Style a run of `, * or _, whose meaning the character behind it decides."""
        run = re.match(re.escape(character) + "+", self._text)[0]  # type: ignore[index]
        after = self._text[len(run) : len(run) + 1]
        if not after and not last:
            return False
        if character == "`":
            self._style_backticks(run)
        elif self._code or len(run) > LONGEST_MARK:
            self._emit(len(run))
        elif run in self._open and not self._before.isspace():
            self._open.remove(run)
            self._emit(len(run), MARK)
        elif self._may_open(run, after or " "):
            self._emit(len(run), MARK)
            self._open.append(run)
        else:
            self._emit(len(run))
        return True

    def _style_backticks(self, run: str) -> None:
        if self._code and run != self._code:
            self._emit(len(run))
            return
        self._code = "" if self._code else run
        self._emit(len(run), MARK)

    def _may_open(self, run: str, after: str) -> bool:
        """Say whether emphasis may begin here, by CommonMark's rule for `_`, also for `*` (2*3)."""
        return not after.isspace() and not self._before.isalnum() and run not in self._open
