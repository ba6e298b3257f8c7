"""Token ids in, token ids out. Knows no text."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from glm4q.memory import Memory
from glm4q.sampling import Sampler, SamplingParams


class LanguageModel(Protocol):
    """What generation needs of a model: new token ids [1, T] -> logits of the last one [1, V]."""

    def __call__(self, input_ids: Tensor, memory: Memory, /) -> Tensor: ...


def prefill(model: LanguageModel, memory: Memory, token_ids: Sequence[int]) -> Tensor:
    """Run a prompt's tokens into the cache, a chunk at a time. Returns the last logits, [V]."""
    logits = None
    for start in range(0, len(token_ids), memory.chunk):
        logits = model(torch.tensor([token_ids[start : start + memory.chunk]]), memory)
    if logits is None:
        raise ValueError("a prompt needs at least one token")
    return logits[0]


def generate(
    model: LanguageModel, memory: Memory, prompt: Sequence[int], params: SamplingParams
) -> Iterator[int]:
    """Yield token ids until a stop token, the limit, or a full cache. Stop tokens are not yielded.

    `prompt` holds all token ids of the context; those already in the cache, its first
    `cache.length`, are not run again.
    """
    context, cache = list(prompt), memory.cache
    sampler = Sampler(params, memory.device)
    room = cache.max_seq_len - len(context)
    limit = room if params.max_tokens is None else min(params.max_tokens, room)
    logits = prefill(model, memory, context[cache.length :])
    for produced in range(1, limit + 1):
        token = sampler(logits, context)
        if token in params.stop_token_ids:
            return
        yield token
        context.append(token)
        if produced < limit:
            logits = prefill(model, memory, [token])
