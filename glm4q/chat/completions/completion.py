"""One answer: what was asked goes in, text, figures and the reason of its end come out."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from glm4q.chat.completions.answer_record import AnswerRecord
from glm4q.chat.messages import Message
from glm4q.chat.replies import ReplyEvent, Text, Thinking
from glm4q.chat.tool_messages import ToolResult

ChatEvent = ReplyEvent | ToolResult
"""A piece of text or of thinking, a call, or the result of one."""


@dataclass(frozen=True)
class Completion:
    """An answer that has ended."""

    text: str
    record: AnswerRecord
    """Tokens, seconds, and why the answer ended; of the last reply where tools were called."""
    thinking: str = ""
    results: tuple[ToolResult, ...] = ()
    """The calls of tools, each with its result."""
    messages: tuple[Message, ...] = ()
    """The conversation with the answer at its end; empty where the prompt was no conversation."""


class CompletionStream:
    """An answer while it streams: iterating gives its text in pieces of whole characters.

    Closing it ends the answer and keeps what has come; `cancel` does the same from another thread.
    """

    def __init__(
        self,
        events: Generator[ChatEvent],
        *,
        record: Callable[[], AnswerRecord],
        messages: Callable[[], tuple[Message, ...]],
        cancel: Callable[[], None],
    ) -> None:
        """record and messages: asked once the answer has ended."""
        self._events, self._record, self._messages = events, record, messages
        self.cancel = cancel
        """End the answer before its next step. Any thread may call it."""
        self._text, self._thinking = "", ""
        self._results: list[ToolResult] = []

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if isinstance(event, Text):
                yield event.text

    def events(self) -> Iterator[ChatEvent]:
        """Yield what iterating leaves out as well: thinking, calls of tools, and their results."""
        for event in self._events:
            if isinstance(event, Text):
                self._text += event.text
            elif isinstance(event, Thinking):
                self._thinking += event.text
            elif isinstance(event, ToolResult):
                self._results.append(event)
            yield event

    def close(self) -> None:
        """End the answer now."""
        self._events.close()

    def completion(self) -> Completion:
        """Read the rest, and return the whole answer."""
        with closing(self):
            for _ in self.events():
                pass
        return Completion(
            self._text, self._record(), self._thinking, tuple(self._results), self._messages()
        )


def text_of(events: Generator[ChatEvent]) -> Generator[str]:
    """Yield the text of an answer alone; closing it closes the events."""
    with closing(events):
        for event in events:
            if isinstance(event, Text):
                yield event.text
