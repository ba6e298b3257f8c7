"""One answer of the model while it is decoded: tokens become text, thinking and tool calls."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from calculator.errors import Glm4qError
from glm4q.chat.replies import ReplyEvent, Text
from glm4q.chat.stop_strings import StopStrings
from glm4q.decode.answer import End, Event, FinishReason, Token
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.server.job import Job
from glm4q.server.mailbox import Mailbox
from glm4q.server.worker import Worker
from glm4q.text.tokenizer import Tokenizer

ASSISTANT = "<|assistant|>"


class Parser(Protocol):
    """What reads the text of an answer: glm4q.chat.replies.ReplyParser, or PlainText."""

    @property
    def stop_string(self) -> str | None: ...

    def feed(self, piece: str) -> list[ReplyEvent]: ...

    def next_segment(self) -> list[ReplyEvent]: ...

    def finish(self, *, whole: bool = True) -> list[ReplyEvent]: ...


class PlainText:
    """The text of a completion, in which nothing has a meaning but stop strings."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = StopStrings(stop)

    @property
    def stop_string(self) -> str | None:
        return self._stop.reached

    def feed(self, piece: str) -> list[ReplyEvent]:
        return self._events(self._stop.feed(piece))

    def next_segment(self) -> list[ReplyEvent]:
        return []

    def finish(self, *, whole: bool = True) -> list[ReplyEvent]:
        return self._events("" if self._stop.reached else self._stop.rest())

    def _events(self, text: str) -> list[ReplyEvent]:
        return [Text(text)] if text else []


@dataclass(frozen=True)
class Finished:
    """Why an answer has ended, and what failed."""

    reason: FinishReason
    error: Glm4qError | None = None
    stop_string: str | None = None
    """The stop string that ended it."""


class Reply:
    """An answer whose events are read on the server's event loop."""

    def __init__(
        self,
        worker: Worker,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        params: SamplingParams,
        parser: Parser,
        constraint: Constraint | None = None,
        *,
        mailbox: Mailbox,
    ) -> None:
        """mailbox: brings events to the loop on which the reply is read."""
        self._worker, self._parser = worker, parser
        self._text = tokenizer.new_stream()
        self._segment = tokenizer.control_tokens.get(ASSISTANT)
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queue = queue
        self.on_token: Callable[[Token], None] | None = None
        """Hears of each token before what it says."""
        self.tokens = 0
        """Tokens of the answer so far."""
        self.job = Job(prompt, params, partial(mailbox.post, queue), constraint)

    async def events(self) -> AsyncIterator[ReplyEvent | Finished]:
        """Yield what the model says, and last why it ends."""
        while True:
            event = await self._queue.get()
            if isinstance(event, End):
                break
            for part in self._take(event):
                yield part
            if self._parser.stop_string is not None:
                self._worker.cancel([self.job])
                event = End("stop")
                break
            if not self._queue.empty():  # the model is ahead, and the client may have gone
                await asyncio.sleep(0)
        for part in self._parser.feed(self._text.rest()):
            yield part
        for part in self._parser.finish(whole=event.reason == "stop"):
            yield part
        stop_string = self._parser.stop_string
        reason = event.reason if stop_string is None else "stop"
        yield Finished(reason, event.error, stop_string)

    def _take(self, event: Token) -> list[ReplyEvent]:
        self.tokens += 1
        if self.on_token is not None:
            self.on_token(event)
        if event.token == self._segment:
            return self._parser.feed(self._text.rest()) + self._parser.next_segment()
        return self._parser.feed(self._text.push(event.token))
