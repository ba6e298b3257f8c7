"""Token ids in, token ids out. Knows no text."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from glm4q.decode.draft import Drafter
from glm4q.decode.sampling import Sampler, SamplingParams
from glm4q.memory.allocation import Memory


class LanguageModel(Protocol):
    """What generation needs of a model: token ids [1, T] -> logits of the last ones [last, V]."""

    def __call__(self, input_ids: Tensor, memory: Memory, /, last: int = 1) -> Tensor: ...


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
    `cache.length`, are not run again. Where `memory` has room for drafts, a step runs guesses of
    the tokens to come as well. Every token is picked from the model's own logits all the same, one
    after another: a guess that is not what was picked is dropped, with all behind it.
    """
    cache, length = memory.cache, len(prompt)
    sampler = Sampler(params, memory.device, prompt)
    drafter = Drafter(prompt, memory.draft_tokens)
    room = cache.max_seq_len - length
    left = room if params.max_tokens is None else min(params.max_tokens, room)
    rows = prefill(model, memory, prompt[cache.length :]).unsqueeze(0)
    draft: list[int] = []
    try:
        while left:
            accepted = 0
            for logits, guess in zip(rows, [*draft, None], strict=True):
                token = sampler(logits)
                if token in params.stop_token_ids:
                    return
                yield token
                drafter.append(token)
                length, left = length + 1, left - 1
                if token != guess:
                    break
                accepted += 1
            drafter.judge(len(draft), accepted)
            cache.truncate(length - 1)  # the newest token is yet to run
            if left:
                draft = drafter.draft(left - 1)
                rows = model(torch.tensor([[token, *draft]]), memory, last=1 + len(draft))
    finally:
        cache.truncate(min(length, cache.length))
