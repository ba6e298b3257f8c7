"""One answer as the model's thread sees it: its prompt, its settings, and what has become of it."""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from glm4q.decode.answer import End, Event
from glm4q.decode.sampling import Constraint, SamplingParams

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Names the request that is being answered, in its answer's headers and in the log."""


@dataclass(eq=False)
class Job:
    """An answer that waits, runs, or has ended. Times are those of time.perf_counter."""

    prompt: Sequence[int]
    params: SamplingParams
    deliver: Callable[[Event], None]
    """Gets the events, on the model's thread."""
    constraint: Constraint | None = None
    """What the answer must match."""
    request_id: str | None = field(default_factory=REQUEST_ID.get)
    cached_tokens: int = 0
    """Tokens of the prompt that were in the cache when it began."""
    tokens: int = 0
    """Tokens of the answer."""
    submitted: float = field(default_factory=time.perf_counter)
    begun: float | None = None
    """When it got a row."""
    first_token: float | None = None
    last_token: float | None = None

    def note_token(self) -> float | None:
        """Count a token; return the seconds since the one before it."""
        now, before = time.perf_counter(), self.last_token
        self.tokens += 1
        self.last_token = now
        if before is None:
            self.first_token = now
            return None
        return now - before


class Watch(Protocol):
    """What hears of jobs, on the model's thread. It must be quick."""

    def token(self, job: Job, seconds: float | None) -> None:
        """A token came, so many seconds after the one before it; None is the first."""

    def ended(self, job: Job, end: End) -> None:
        """A job has ended."""

    def model_came(self, seconds: float) -> None:
        """The model was loaded again, which took so long."""

    def model_went(self) -> None:
        """The model's memory was given back, because nobody asked."""
