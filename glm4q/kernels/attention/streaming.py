"""Attention in torch's operators: the reference that every other attention is tested against."""

from collections.abc import Iterator

import torch
from torch import Tensor

from glm4q.kernels.attention.append_tokens import append_and_attend
from glm4q.kernels.attention.attention_spec import AttentionSpec
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.workspace import Step


class StreamingAttention:
    """Serves every cache on every device."""

    name = "torch"
    reads_length_on_device = False
    rows_alike = False

    def refuses(self, spec: AttentionSpec) -> str | None:
        return None

    def __call__(self, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        return append_and_attend(step, cache, attend)


def attend(step: Step, cache: LayerCache) -> None:
    """Causal attention of the newest T tokens to all S cached ones: from "queries" to "mixed".

    Streams over the cache tile by tile with a running maximum and sum (the online softmax of
    https://arxiv.org/abs/1805.02867), so no [T, S] matrix exists. Scores, softmax and sums are
    float32: GLM-4's scores overflow and round badly in half precision.
    """
    queries, mixed = step["queries"], step["mixed"]
    if cache.keys.hadamard:
        queries = hadamard_transform(queries, step, step["transformed_queries"])
    rows = queries.flatten(0, 1)  # [B * Hkv, G * T, D]
    sums = mixed.flatten(0, 1).zero_()
    best, total, new_best, shrink = step["softmax"].flatten(1, 2)
    best.fill_(-torch.inf)
    total.zero_()
    for start, stop, future in _tiles(step, cache.length):
        k, v = (each.flatten(0, 1) for each in cache.read(start, stop, step))
        scores = step["scores"].flatten(0, 1)[..., : stop - start]  # [B * Hkv, G * T, tile]
        torch.bmm(rows, k.transpose(1, 2), out=scores)
        if future is not None:
            scores.unflatten(1, (-1, len(future))).masked_fill_(future, -torch.inf)
        torch.amax(scores, -1, keepdim=True, out=new_best)
        torch.maximum(new_best, best, out=new_best)
        torch.sub(best, new_best, out=shrink).exp_()
        scores.sub_(new_best).exp_()
        total.mul_(shrink)
        total.add_(torch.sum(scores, -1, keepdim=True, out=best))
        sums.mul_(shrink).baddbmm_(scores, v)
        best.copy_(new_best)
    sums.div_(total)
    if cache.values.hadamard:
        mixed.copy_(hadamard_transform(mixed, step, step["mixed_hadamard"]))


def _tiles(step: Step, cached: int) -> Iterator[tuple[int, int, Tensor | None]]:
    """Yield runs of cached tokens; for the new ones also a mask of the future, [T, tile]."""
    tokens, tile = step.shape.tokens, step.shape.tile
    past = cached - tokens if tokens > 1 else cached
    for start in range(0, past, tile):
        yield start, min(start + tile, past), None
    for start in range(past, cached, tile):
        stop = min(start + tile, cached)
        yield start, stop, step["future"][:, start - past : stop - past]
