"""Log-probabilities as OpenAI's API writes them: those of the tokens that a text consists of.

A text comes later than its tokens, and less of it: characters are whole, and the beginning of what
may be a stop string waits. Tokens of thinking and of calls are not part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm4q.decode.answer import Token
from glm4q.server.request.bodies import Json
from glm4q.text.tokenizer import Tokenizer

LEAST = -9999.0
"""OpenAI's number for a token that cannot come; JSON has no infinity."""


@dataclass(frozen=True)
class SaidToken:
    """A token of a text."""

    event: Token
    start: int
    """Bytes of the text before it."""
    size: int


class TokenLog:
    """Keeps tokens until the text that they spell is said."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: list[SaidToken] = []
        self._bytes = b""  # of the tokens that wait

    def push(self, event: Token) -> None:
        """Note a token. Control tokens say nothing."""
        if data := self._tokenizer.token_bytes(event.token):
            self._waiting.append(SaidToken(event, len(self._bytes), len(data)))
            self._bytes += data

    def take(self, text: str) -> list[SaidToken]:
        """Return the tokens of a text that is said now; each comes with the first of its bytes.

        What stands before the text, such as the newline of the role's line, is dropped.
        """
        wanted = text.encode("utf-8", "replace")
        place = self._bytes.find(wanted)
        # Bytes that are no character are said as U+FFFD: then all tokens are taken.
        begin, end = (0, len(self._bytes)) if place < 0 else (place, place + len(wanted))
        shown = [t for t in self._waiting if t.start < end and t.start + t.size > begin]
        self._waiting = [
            SaidToken(t.event, t.start - end, t.size) for t in self._waiting if t.start >= end
        ]
        self._bytes = self._bytes[end:]
        return [SaidToken(t.event, max(0, t.start - begin), t.size) for t in shown]

    def chat_record(self, shown: Sequence[SaidToken]) -> Json:
        """The logprobs of a chat's choice."""
        return {"content": [self._described(token.event) for token in shown], "refusal": None}

    def text_record(self, shown: Sequence[SaidToken], piece: str, before: str) -> Json:
        """The logprobs of a completion's choice. before: the text before this piece."""
        data = piece.encode("utf-8", "replace")
        events = [token.event for token in shown]
        return {
            "tokens": [self._tokenizer.token_text(event.token) for event in events],
            "token_logprobs": [_picked(event) for event in events],
            "top_logprobs": [
                {self._tokenizer.token_text(token): _finite(value) for token, value in _top(event)}
                for event in events
            ],
            "text_offset": [
                len(before) + len(data[: token.start].decode("utf-8", "ignore")) for token in shown
            ],
        }

    def _described(self, event: Token) -> Json:
        top = [self._entry(token, _finite(value)) for token, value in _top(event)]
        return {**self._entry(event.token, _picked(event)), "top_logprobs": top}

    def _entry(self, token: int, value: float) -> Json:
        data = self._tokenizer.token_bytes(token)
        text = self._tokenizer.token_text(token)
        return {"token": text, "logprob": value, "bytes": list(data) or None}


def _top(event: Token) -> Sequence[tuple[int, float]]:
    return () if event.log_probabilities is None else event.log_probabilities.top


def _picked(event: Token) -> float:
    return LEAST if event.log_probabilities is None else _finite(event.log_probabilities.picked)


def _finite(value: float) -> float:
    return max(LEAST, value)
