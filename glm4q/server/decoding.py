"""What the server needs of the decoding loop: answers that join, tokens, and why each ends."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch

from calculator.errors import MemoryFullError
from glm4q.decode.answer import Answer, Event
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import SamplingParams


class Begun(Hashable, Protocol):
    """An answer that has a row."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were in the cache already."""


class Decoder(Protocol):
    """The decoding loop as the server sees it. One thread alone uses it."""

    @property
    def free(self) -> int:
        """How many answers may join."""

    def join(self, prompt: Sequence[int], params: SamplingParams) -> Begun:
        """Begin an answer. Raises Glm4qError where the prompt does not fit."""

    def cancel(self, answer: Any) -> None:
        """End an answer; its row is free at once."""

    def step(self) -> Sequence[tuple[Hashable, Event]]:
        """Run a step, and return what has happened to which answer. Raises Glm4qError."""


class BatchDecoder:
    """A `Batch` that says in one line where the device has no memory left."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    @property
    def free(self) -> int:
        return self._batch.free

    def join(self, prompt: Sequence[int], params: SamplingParams) -> Answer:
        return self._batch.join(prompt, params)

    def cancel(self, answer: Any) -> None:
        self._batch.cancel(answer)

    def step(self) -> list[tuple[Answer, Event]]:
        try:
            return self._batch.step()
        except torch.OutOfMemoryError:
            raise MemoryFullError(
                "the device has no memory left: another program took it"
            ) from None
