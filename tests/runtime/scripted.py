"""A model that says what a test scripts, and remembers what it was shown."""

import torch
from torch import Tensor

from calculator.config import ModelConfig
from glm4q.cache import KVCache
from tests import tiny


class ScriptedModel:
    """Each pass answers with the next token of the script, whatever it is asked."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        self.script = list(script)
        self.seen: list[list[int]] = []
        self._vocab_size = vocab_size

    def __call__(self, input_ids: Tensor, cache: KVCache, /) -> Tensor:
        self.seen.append(input_ids[0].tolist())
        cache.reserve(input_ids.shape[1])
        cache.advance(input_ids.shape[1])
        logits = torch.zeros(1, self._vocab_size)
        logits[0, self.script.pop(0)] = 10.0
        return logits


def small_cache(max_seq_len: int, config: ModelConfig = tiny.BASE) -> KVCache:
    return KVCache(config, max_seq_len, dtype=torch.float32)
