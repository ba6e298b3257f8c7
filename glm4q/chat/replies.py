"""A reply, parsed while it streams: answer, thinking, tool calls.

The parser decides only where the text so far allows one reading, so what it returns does not depend
on how the stream was cut into pieces.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from glm4q.chat.stop_strings import StopStrings, unfinished
from glm4q.tools.calls import (
    NAME,
    OBJECT_WITH_NAME,
    RAW_ARGUMENT,
    BadCall,
    CallStyle,
    JsonSyntax,
    ToolCall,
    read_object_call,
)
from glm4q.tools.python_calls import PythonSyntax
from glm4q.tools.scanner import BracketScanner

THINK, END_THINK = "<think>", "</think>"
BLANKS = " \t\r"
"""What may stand beside a tool's name on its line: glm4q.chat.calls.text_or_call says the same."""


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """A piece of what the model thinks before it answers; it is not fed back."""

    text: str


ReplyEvent = Text | Thinking | ToolCall | BadCall


class ReplyParser:
    """Takes the pieces of one reply, and returns what they say as soon as it is certain.

    tools: the names that were offered; without them every text is an answer. thinking: the prompt
    ended inside `<think>`. role_line: the prompt ended with `<|assistant|>`, so that a newline, or
    the name of a tool, comes first. stop: strings that end the answer, and are not part of it.
    style: how the model writes calls. natives: GLM-4's own tools, to which the rest of a message
    is given as it is.
    """

    def __init__(
        self,
        *,
        tools: Collection[str] = (),
        thinking: bool = False,
        role_line: bool = True,
        stop: Sequence[str] = (),
        style: CallStyle = "metadata",
        natives: Collection[str] = (),
    ) -> None:
        self._tools, self._stop_strings = frozenset(tools), StopStrings(stop)
        self._style, self._natives = style, frozenset(natives)
        self._text = ""  # what is not decided yet
        self._events: list[ReplyEvent] = []
        self._role_line, self._indented = role_line, False
        self._may_be_unknown = role_line  # only there a name that was not offered is a call
        self._thought = ""
        self._read: Callable[[bool], bool] = self._read_thinking if thinking else self._read_start
        self._name = ""
        self._syntax = self._new_syntax()
        self._scanner = BracketScanner()

    @property
    def stopped(self) -> bool:
        """Whether a stop string came: nothing more is to be generated."""
        return self.stop_string is not None

    @property
    def stop_string(self) -> str | None:
        """The stop string that came."""
        return self._stop_strings.reached

    def feed(self, piece: str) -> list[ReplyEvent]:
        """Return what is certain once this piece has come."""
        self._text += piece
        return self._take(last=False)

    def next_segment(self) -> list[ReplyEvent]:
        """The model wrote `<|assistant|>` itself: what follows begins with a role line again."""
        events = self._take(last=True)
        self._role_line = self._may_be_unknown = True
        self._read = self._read_start
        return events

    def finish(self, *, whole: bool = True) -> list[ReplyEvent]:
        """Return the rest. whole: the model ended the reply itself.

        A model that was to think and ended without `</think>` has answered in place of thinking:
        its text is returned once more, as the answer.
        """
        events = self._take(last=True, whole=whole)
        if self._read == self._read_thinking and whole:
            self._text, self._read = self._thought, self._read_gap
            events += self._take(last=True)
        self._release()
        return events + self._taken()

    def _take(self, *, last: bool, whole: bool = True) -> list[ReplyEvent]:
        while self._text and not self.stopped and self._read(last):
            pass
        if last and self._read in (self._read_call, self._read_object):
            self._cut_call()
        if last and self._read == self._read_native:
            self._end_native(whole=whole)
        return self._taken()

    def _taken(self) -> list[ReplyEvent]:
        events, self._events = self._events, []
        return events

    # Each state takes what it can from the front of `_text`. It returns False where it must wait.

    def _read_start(self, last: bool) -> bool:
        """Read the beginning of a reply: the newline of the role line, or `<think>`."""
        text = self._text
        if self._role_line and text[0] == "\n":
            self._text, self._role_line, self._may_be_unknown = text[1:], False, False
            self._indented = self._style == "python"
            return True
        if self._indented:  # ChatGLM3's tokenizer begins each text with a space
            self._text, self._indented = text.removeprefix(" "), False
            return bool(self._text)
        if text.startswith(THINK):
            self._text, self._read = text[len(THINK) :], self._read_thinking
            return True
        if THINK.startswith(text) and not last:
            return False
        self._read = self._read_line_start
        return True

    def _read_thinking(self, last: bool) -> bool:
        before, end, after = self._text.partition(END_THINK)
        if not end:
            keep = 0 if last else unfinished(before, [END_THINK])
            before, after = before[: len(before) - keep], before[len(before) - keep :]
        if before:
            self._thought += before
            self._events.append(Thinking(before))
        if end:
            self._read = self._read_gap
        self._text = after
        return bool(before or end)

    def _read_gap(self, last: bool) -> bool:
        """White space between thinking and the answer, or behind a call."""
        self._text = self._text.lstrip(BLANKS + "\n")
        if not self._text:
            return False
        self._may_be_unknown, self._read = False, self._read_line_start
        return True

    def _read_line_start(self, last: bool) -> bool:
        """Read a line that may be the name of a tool, or an object that may be a call."""
        if not self._tools:
            self._read = self._read_line
            return True
        if self._text[0] == "{":
            return self._read_brace(last)
        line, newline, after = self._text.partition("\n")
        name, arguments = line.strip(BLANKS), after.lstrip(BLANKS + "\n")
        begins: bool | None = False
        if self._may_be_name(name, whole=bool(newline)):
            if newline and self._may_be_unknown and name in self._natives:
                self._name, self._text, self._read = name, after, self._read_native
                return True
            self._syntax = self._new_syntax()
            begins = self._syntax.begins(arguments) if newline else None
        if begins is None and not last:
            return False
        if begins:
            self._name, self._text, self._read = name, arguments, self._read_call
        else:
            self._read = self._read_line
        return True

    def _read_brace(self, last: bool) -> bool:
        begun = OBJECT_WITH_NAME.match(self._text)
        squeezed = "".join(self._text.split())
        if not begun and not last and '{"name":'.startswith(squeezed):
            return False
        self._scanner = BracketScanner()
        self._read = self._read_object if begun else self._read_line
        return True

    def _may_be_name(self, line: str, *, whole: bool) -> bool:
        """Return whether a line, or its beginning, is a tool's name."""
        if self._may_be_unknown and NAME.fullmatch(line):
            return True
        if whole:
            return line in self._tools
        return any(tool.startswith(line) for tool in self._tools)

    def _read_line(self, last: bool) -> bool:
        """Text up to the end of the line."""
        line, newline, self._text = self._text.partition("\n")
        self._answer(line + newline)
        self._may_be_unknown = False
        if newline:
            self._read = self._read_line_start
        return True

    def _read_call(self, last: bool) -> bool:
        end = self._syntax.end(self._text, last=last)
        if end is None:
            return False
        self._call(self._syntax.read(self._name, self._text[:end], self._tools), end)
        return True

    def _read_native(self, last: bool) -> bool:
        """Read all the rest of the message."""
        return False

    def _read_object(self, last: bool) -> bool:
        end = self._scanner.end(self._text)
        if end is None:
            return False
        call = read_object_call(self._text[:end], self._tools)
        if call is None:
            self._read = self._read_line
        else:
            self._call(call, end)
        return True

    def _call(self, call: ToolCall | BadCall, end: int) -> None:
        self._release()
        self._events.append(call)
        self._text, self._read = self._text[end:], self._read_gap

    def _end_native(self, *, whole: bool) -> None:
        text, self._text, self._read = self._text, "", self._read_line
        if whole:
            self._events.append(ToolCall(self._name, {RAW_ARGUMENT: text.strip()}, text))
        else:
            reason = "the call is not complete: the reply was cut"
            self._events.append(BadCall(f"{self._name}\n{text}", reason))

    def _new_syntax(self) -> JsonSyntax | PythonSyntax:
        return PythonSyntax() if self._style == "python" else JsonSyntax()

    def _cut_call(self) -> None:
        """The reply ended inside a call."""
        name = f"{self._name}\n" if self._read == self._read_call else ""
        language = "Python call" if self._style == "python" else "JSON"
        reason = f"the call is not complete: the reply ended inside its {language}"
        self._release()
        self._events.append(BadCall(name + self._text, reason))
        self._text, self._read = "", self._read_line

    def _answer(self, text: str) -> None:
        if certain := self._stop_strings.feed(text):
            self._events.append(Text(certain))

    def _release(self) -> None:
        """Show what waits: a stop string ends within one stretch of the answer, so it is none."""
        if rest := self._stop_strings.rest():
            self._events.append(Text(rest))
