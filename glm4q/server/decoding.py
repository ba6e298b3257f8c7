"""What the server needs of the decoding loop: answers that join, tokens, and why each ends."""

import gc
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import torch

from calculator.errors import PrefixError
from glm4q.decode.answer import Answer, Event
from glm4q.decode.batch import Batch
from glm4q.decode.pace.pause_bound import PauseBound
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.decode.token_runner import TokenRunner
from glm4q.model.loader import held_tensors


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

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""

    @property
    def kept_tokens(self) -> int:
        """Tokens in the cache: those of running answers, and of prompts that may come again."""

    @property
    def row_tokens(self) -> list[int]:
        """Tokens of each row of the cache; none while the model is not loaded."""

    @property
    def longest_pause(self) -> float:
        """Seconds that a running answer may wait for the prompt of another."""

    def held(self) -> dict[str, int]:
        """Bytes of the tensors by the parts of a plan; none while the model is not loaded."""

    def join(
        self, prompt: Sequence[int], params: SamplingParams, constraint: Constraint | None
    ) -> Begun:
        """Begin an answer. Raises Glm4qError where the prompt does not fit.

        constraint: what the answer must match.
        """

    def cancel(self, answer: Any) -> None:
        """End an answer; its row is free at once."""

    def step(self) -> Sequence[tuple[Hashable, Event]]:
        """Run a step, and return what has happened to which answer. Raises Glm4qError."""

    def unload(self) -> None:
        """Give the model's memory back. No answer may be running."""

    def load(self) -> None:
        """Load the model again. Raises Glm4qError where its memory is not free any more."""


class BatchDecoder:
    """The rows of a loaded model, which may be given back and loaded again."""

    def __init__(
        self,
        batch: Batch,
        load: Callable[[], Batch],
        note: Callable[[str], None] = lambda line: None,
        *,
        pause: PauseBound | None = None,
    ) -> None:
        """load: loads the same model with the same rows. note: gets a line for whoever serves.

        pause: how long running answers may wait for a prompt; chosen by the speed if not given.

        Where the batch has prefixes on disk, what two prompts share is added to them.
        """
        self._batch: Batch | None = batch
        self._pause = batch.pause = PauseBound() if pause is None else pause
        self._prefixes, self._note = batch.prefixes, note
        self._keeps = self._prefixes is not None
        self._load, self._rows = load, len(batch.rows)

    @property
    def free(self) -> int:
        return self._rows if self._batch is None else self._batch.free

    @property
    def loaded(self) -> bool:
        return self._batch is not None

    @property
    def kept_tokens(self) -> int:
        return sum(self.row_tokens)

    @property
    def row_tokens(self) -> list[int]:
        batch = self._batch
        return [] if batch is None else [row.cache.length for row in batch.rows]

    @property
    def longest_pause(self) -> float:
        return self._pause.seconds

    def held(self) -> dict[str, int]:
        batch = self._batch
        return {} if batch is None else _held(batch.runner)

    @property
    def batch(self) -> Batch:
        """The rows. Raises RuntimeError while the model is not loaded."""
        if self._batch is None:
            raise RuntimeError("the model is not loaded")
        return self._batch

    def join(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        constraint: Constraint | None = None,
    ) -> Answer:
        if self._keeps:
            try:
                self.batch.keep_shared(prompt)
            except PrefixError as error:  # a full disk ends the keeping, and no answer
                self._keeps = False
                self._note(f"prompts are not kept any more: {error}")
        return self.batch.join(prompt, params, constraint=constraint)

    def cancel(self, answer: Any) -> None:
        self.batch.cancel(answer)

    def step(self) -> list[tuple[Answer, Event]]:
        return self.batch.step()

    def unload(self) -> None:
        self._batch = None
        gc.collect()  # a model's modules refer to one another
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def load(self) -> None:
        self._batch = self._load()
        self._batch.prefixes, self._batch.pause = self._prefixes, self._pause


def _held(runner: TokenRunner) -> dict[str, int]:
    memory = runner.memory
    cache = _bytes(memory.cache.tensors)
    rest = {"KV cache": cache, "workspace": _bytes(memory.tensors) - cache}
    if not isinstance(runner, Runner):
        return rest
    return {"weights": _bytes(held_tensors(runner.model).values()), **rest}


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
