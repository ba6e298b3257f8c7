"""A model that says what a test scripts, and remembers what it was shown."""

import torch
from torch import Tensor

from glm4q.memory.allocation import Memory
from tests import tiny
from tests.glm4q.memories import memory_on_cpu


class ScriptedModel:
    """Each pass answers with the next token of the script, whatever it is asked."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        self.script = list(script)
        self.seen: list[list[int]] = []
        self._vocab_size = vocab_size

    def __call__(self, input_ids: Tensor, memory: Memory, /, last: int = 1) -> Tensor:
        self.seen.append(input_ids[0].tolist())
        memory.cache.reserve(input_ids.shape[1])
        memory.cache.advance(input_ids.shape[1])
        logits = torch.zeros(last, self._vocab_size)
        for row in logits:
            row[self.script.pop(0)] = 10.0
        return logits


def small_memory(room: int, *, chunk: int | None = None, draft_tokens: int = 0) -> Memory:
    return memory_on_cpu(tiny.BASE, room, chunk=chunk, draft_tokens=draft_tokens)
