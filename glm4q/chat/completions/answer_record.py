"""What an answer took: its tokens, its seconds, and why it ended."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from glm4q.decode.answer import Event, FinishReason, Token
from glm4q.decode.generate import token_ids


@dataclass
class AnswerRecord:
    """What one answer took; filled while it is streamed."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were in the cache already."""
    tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finish_reason: FinishReason = "cancelled"
    """Cancelled until the answer has ended in another way."""
    chosen: list[Token] = field(default_factory=list)
    """The tokens with their log-probabilities, where these were asked for."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding, after the first token."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0

    def count(self, events: Iterable[Event]) -> Iterator[int]:
        """Yield the tokens of an answer, counted and timed as they come.

        Raises the error that ended the answer, if one did.
        """
        begun = time.perf_counter()
        for token in token_ids(self._noted(events)):
            now = time.perf_counter()
            if not self.tokens:
                self.prefill_seconds, begun = now - begun, now
            self.decode_seconds = now - begun
            self.tokens += 1
            yield token

    def end(self, reason: FinishReason | None) -> None:
        """Note why the answer ended; None where it was cancelled."""
        self.finish_reason = reason or "cancelled"

    def _noted(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Token) and event.log_probabilities is not None:
                self.chosen.append(event)
            yield event
