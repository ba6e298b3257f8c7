"""A reply while it streams, and the messages that remember it."""

from collections.abc import Iterator

from glm4q.chat.messages import Message
from glm4q.chat.replies import ReplyEvent, ReplyParser, Text
from glm4q.text.tokenizer import Tokenizer
from glm4q.tools.calls import BadCall, ToolCall

ASSISTANT = "<|assistant|>"
"""GLM-4 writes this token itself between prose and a call."""


class ReplyRecord:
    """Parses the pieces of a reply and keeps what is to be fed back: the answer, not the thinking.

    Calls are remembered by whoever runs them, each with its result.
    """

    def __init__(self, parser: ReplyParser) -> None:
        self._parser = parser
        self._answers = [""]  # one for each segment
        self._called = False
        self._finished = False
        self.raw = ""
        """All that the model wrote."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._parser.stopped

    def feed(self, piece: str) -> list[ReplyEvent]:
        """Return what is certain once this piece has come."""
        self.raw += piece
        return self._keep(self._parser.feed(piece))

    def next_segment(self, token: str) -> list[ReplyEvent]:
        """The model wrote the token that begins a message of its own."""
        self.raw += token
        events = self._keep(self._parser.next_segment())
        if self._answers[-1]:
            self._answers.append("")
        return events

    def finish(self, *, whole: bool) -> list[ReplyEvent]:
        """Return the rest. whole: the model ended the reply itself."""
        self._finished = True
        return self._keep(self._parser.finish(whole=whole))

    def messages(self) -> list[Message]:
        """Return the messages without calls. A reply that was interrupted ends as it is."""
        if not self._finished:
            rest = self.finish(whole=False)
            self._answers[-1] += "".join(e.text for e in rest if isinstance(e, BadCall))
        answers = [answer for answer in self._answers if answer]
        if not answers and not self._called:
            answers = [""]
        return [{"role": "assistant", "content": answer} for answer in answers]

    def _keep(self, events: list[ReplyEvent]) -> list[ReplyEvent]:
        for event in events:
            if isinstance(event, Text):
                self._answers[-1] += event.text
            elif isinstance(event, ToolCall | BadCall):
                self._called = True
        return events


class Segments:
    """Token ids, cut at each token that ends a segment."""

    def __init__(self, tokens: Iterator[int], end: int | None) -> None:
        self._tokens, self._end = tokens, end
        self.more = True

    def __iter__(self) -> Iterator[Iterator[int]]:
        while self.more:
            yield self._segment()

    def _segment(self) -> Iterator[int]:
        self.more = False
        for token in self._tokens:
            if token == self._end:
                self.more = True
                return
            yield token


def read_reply(
    tokens: Iterator[int], reply: ReplyRecord, tokenizer: Tokenizer, separator: int | None
) -> Iterator[ReplyEvent]:
    """Read a reply from its tokens, until they end or a stop string comes.

    separator: the control token, of the text ASSISTANT, that begins a further message of one reply.
    """
    segments = Segments(tokens, separator)
    for segment in segments:
        for piece in tokenizer.stream(segment):
            yield from reply.feed(piece)
            if reply.stopped:
                return
        if segments.more:
            yield from reply.next_segment(ASSISTANT)
