"""Several answers at once: each prompt is run alone, and all answers are decoded together.

A step of many rows reads every weight once for all of them. Sequences join and leave between steps;
each has its own length, its own sampling and its own random state.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from calculator.errors import OptionError
from glm4q.decode.generate import LanguageModel
from glm4q.decode.sampling import Sampler, SamplingParams
from glm4q.memory.allocation import Memory


@dataclass(eq=False)
class Row:
    """A sequence of a batch."""

    memory: Memory
    params: SamplingParams
    sampler: Sampler
    unrun: deque[int]
    """Tokens that are not in the cache yet; one, the newest, while the answer is decoded."""
    left: int
    """Tokens that the answer may still have."""


class Batch:
    """Sequences that share steps. They join while a row of the cache is free."""

    def __init__(self, model: LanguageModel, memory: Memory) -> None:
        self._model, self._memory = model, memory
        self._free = [memory.row(row) for row in range(memory.cache.batch)]
        self._rows: list[Row] = []

    @property
    def free(self) -> int:
        """Sequences that may join."""
        return len(self._free)

    def join(self, prompt: Sequence[int], params: SamplingParams) -> Row:
        """Add a sequence. Raises OptionError where it does not fit."""
        if not self._free:
            raise OptionError(f"all {len(self._rows)} rows of the batch are taken")
        room = self._free[-1].cache.max_seq_len - len(prompt)
        if not prompt or room <= 0:
            raise OptionError(
                f"the prompt takes {len(prompt)} tokens, and a row holds 1 to {room + len(prompt)}"
            )
        left = room if params.max_tokens is None else min(params.max_tokens, room)
        sampler = Sampler(params, self._memory.device, prompt)
        row = Row(self._free.pop(), params, sampler, deque(prompt), left)
        self._rows.append(row)
        return row

    def leave(self, row: Row) -> None:
        """Drop a sequence, whether its answer has ended or not."""
        self._rows.remove(row)
        row.memory.cache.truncate(0)
        self._free.append(row.memory)

    def step(self) -> list[tuple[Row, int | None]]:
        """Run a chunk of one prompt, and one token of every answer.

        Returns the new tokens, and None where an answer has ended: its sequence has left.
        """
        if prompted := next((row for row in self._rows if len(row.unrun) > 1), None):
            count = min(len(prompted.unrun) - 1, self._memory.chunk)
            chunk = [prompted.unrun.popleft() for _ in range(count)]
            self._model(torch.tensor([chunk]), prompted.memory)
        ready = [row for row in self._rows if len(row.unrun) == 1]
        if not ready:
            return []
        input_ids = torch.tensor([[row.unrun.popleft()] for row in ready])
        logits = self._model(input_ids, self._memory.together([row.memory for row in ready]))
        picked = [(row, row.sampler(own)) for row, own in zip(ready, logits, strict=True)]
        return [event for row, token in picked for event in self._count(row, token)]

    def _count(self, row: Row, token: int) -> Iterator[tuple[Row, int | None]]:
        stopped = token in row.params.stop_token_ids
        if not stopped:
            row.unrun.append(token)
            row.left -= 1
            yield row, token
        if stopped or not row.left:
            self.leave(row)
            yield row, None


def generate_batch(
    model: LanguageModel,
    memory: Memory,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
) -> Iterator[tuple[int, int]]:
    """Yield the index of a prompt and the next token of its answer, as tokens come.

    As many run at once as the cache has rows; the others follow as these end. Each answer is what
    `generate` gives for its prompt and its params.
    """
    batch = Batch(model, memory)
    waiting = deque(enumerate(zip(prompts, params, strict=True)))
    running: dict[Row, int] = {}
    while waiting or running:
        while waiting and batch.free:
            index, request = waiting.popleft()
            running[batch.join(*request)] = index
        for row, token in batch.step():
            if token is None:
                del running[row]
            else:
                yield running[row], token
