"""Grouped-query attention over the KV cache.

Shapes, here and everywhere: B batch, T new tokens, S cached tokens, H query heads, Hkv key/value
heads, G = H / Hkv query heads that share one, D head size, C hidden size, N rows and K columns of a
weight.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from calculator.model.config import ModelConfig
from glm4q.kernels.cpu.attention import attends_natively, native_attend
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.kv.hadamard import hadamard_transform, prepare_hadamard
from glm4q.memory.workspace import Step
from glm4q.model.linear import Linear
from glm4q.model.rope import (
    has_attention_factor,
    prepare_rotation,
    prepare_tile_rotation,
    rotate_,
)


class Attention(nn.Module):
    """Project, rotate, append to the cache, attend to all of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, bias, size = config.hidden_size, config.attention_bias, config.head_dim
        self.q_proj = Linear(hidden, config.num_attention_heads * size, bias=bias)
        self.k_proj = Linear(hidden, config.num_key_value_heads * size, bias=bias)
        self.v_proj = Linear(hidden, config.num_key_value_heads * size, bias=bias)
        self.o_proj = Linear(config.num_attention_heads * size, hidden)
        self.has_attention_factor = has_attention_factor(config)

    def forward(self, x: Tensor, step: Step, cache: LayerCache | LayerRows) -> Tensor:  # [B, T, C]
        return self.o_proj(self.mix(x, step, cache), step, step["delta"])

    def mix(self, x: Tensor, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        """All that comes before `o_proj`: [B, T, C] -> [B, T, H * D]."""
        q, k, v = step["q"], step["k"], step["v"]  # [B, T, heads, D]
        for project, out in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v)):
            project(x, step, out.flatten(-2))
        if cache.fused is not None and step.shape.tokens == 1:
            return cache.append_and_attend(cache.fused, step)
        half, fresh = step["half_rotated"], step["fresh"]
        rest = cache.center_keys(fresh.copy_(k.transpose(1, 2)))
        cache.append_keys(rotate_(rest, half[:, :, 0], step), step)
        cache.append_values(fresh.copy_(v.transpose(1, 2)), step)
        # The G query heads that share a KV head become rows of one matrix: [B, Hkv, G * T, D].
        shared = q.unflatten(2, (k.shape[2], -1)).permute(0, 2, 3, 1, 4)  # [B, Hkv, G, T, D]
        queries = step["queries"].view(shared.shape).copy_(shared)
        rotate_(queries, half, step).mul_(q.shape[-1] ** -0.5)
        for own, row in cache.by_row(step):
            if row.fused is not None and row.fused.takes(step.shape.tokens):
                row.attend(row.fused, own)
            elif attends_natively(queries) and not (
                self.has_attention_factor and row.keys.centers is not None
            ):
                native_attend(own, row)
            else:
                attend(own, row)
        heads = step["mixed"].view(shared.shape).permute(0, 3, 1, 2, 4)  # [B, T, Hkv, G, D]
        attended = step["attended"]
        attended.view(heads.shape).copy_(heads)
        return attended


def prepare_attention(config: ModelConfig, step: Step, *, centered: bool = False) -> None:
    """What all layers of a step share; "cached" says how many tokens are there before it.

    centered: whether the cache keeps keys less their centre.
    """
    prepare_rotation(config, step)
    if centered:
        prepare_tile_rotation(config, step)
    prepare_hadamard(step)
    step["future"].fill_(True).triu_(1)  # [T, T]: a new token that comes after the one that asks


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
    """Runs of cached tokens, and for the new ones among them what may not be seen, [T, tile]."""
    tokens, tile = step.shape.tokens, step.shape.tile
    past = cached - tokens if tokens > 1 else cached
    for start in range(0, past, tile):
        yield start, min(start + tile, past), None
    for start in range(past, cached, tile):
        stop = min(start + tile, cached)
        yield start, stop, step["future"][:, start - past : stop - past]
