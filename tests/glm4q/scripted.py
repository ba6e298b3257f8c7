"""A runner that says what a test scripts, and remembers what it was shown."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calculator.errors import NumericError
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache
from tests import tiny
from tests.glm4q.memories import memory_on_cpu


class ScriptedRunner:
    """Each pass answers with the next token of the script, whatever it is asked."""

    mixed = None
    recorded_prompts = ()

    def __init__(self, script: list[int], vocab_size: int, memory: Memory) -> None:
        self.script, self.memory = list(script), memory
        self.seen: list[list[int]] = []
        self._vocab_size = vocab_size

    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        (cache,) = caches
        self.seen.append(input_ids[0].tolist())
        cache.check_room(input_ids.shape[1])
        cache.advance(input_ids.shape[1])
        logits = torch.zeros(last, self._vocab_size)
        for row in logits:
            row[self.script.pop(0)] = 10.0
        return logits

    def find_overflow(self, token_ids: Sequence[int], cache: KVCache, /) -> NumericError:
        return NumericError("the script")


def small_memory(room: int, *, chunk: int | None = None, draft_tokens: int = 0) -> Memory:
    return memory_on_cpu(tiny.BASE, room, chunk=chunk, draft_tokens=draft_tokens)
