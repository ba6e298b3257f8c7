"""Grouped-query attention over the KV cache.

Shapes, here and everywhere: B batch, T new tokens, S cached tokens, H query heads, Hkv key/value
heads, G = H / Hkv query heads that share one, D head size, C hidden size, N rows and K columns of a
weight.
"""

import torch
from torch import Tensor, nn

from calculator.config import ModelConfig
from calculator.workspace import ATTENTION_TILE
from glm4q.cache import LayerCache
from glm4q.layers.rope import Rotation, rotate


class Attention(nn.Module):
    """Project, rotate, append to the cache, attend to all of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, bias = config.hidden_size, config.attention_bias
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        self.q_proj = nn.Linear(hidden, self.num_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, self.num_kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden, self.num_kv_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.num_heads * config.head_dim, hidden, bias=False)

    def forward(self, x: Tensor, by: Rotation, cache: LayerCache) -> Tensor:  # x: [B, T, C]
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1))  # [B, T, H, D]
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, -1))  # [B, T, Hkv, D]
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, -1))  # [B, T, Hkv, D]
        cache.append(rotate(k, by), v)
        return self.o_proj(attend(rotate(q, by), cache).flatten(-2))


def attend(q: Tensor, cache: LayerCache) -> Tensor:
    """Causal attention of the newest T tokens to all S cached ones. q: [B, T, H, D] -> the same.

    Streams over the cache tile by tile with a running maximum and sum (the online softmax of
    https://arxiv.org/abs/1805.02867), so no [T, S] matrix exists. Scores, softmax and sums are
    float32: GLM-4's scores overflow and round badly in half precision.
    """
    tokens, cached = q.shape[1], cache.length
    # The G query heads that share a KV head become rows of one matrix: [B, Hkv, G * T, D].
    shared = q.unflatten(2, (cache.num_kv_heads, -1)).permute(0, 2, 3, 1, 4).float()
    rows = shared.mul_(q.shape[-1] ** -0.5).flatten(2, 3)
    best = rows.new_full((*rows.shape[:-1], 1), -torch.inf)
    total = torch.zeros_like(best)
    mixed = torch.zeros_like(rows)
    for start in range(0, cached, ATTENTION_TILE):
        k, v = cache.read(start, min(start + ATTENTION_TILE, cached))  # float32 [B, Hkv, tile, D]
        scores = rows @ k.transpose(-1, -2)  # [B, Hkv, G * T, tile]
        if start + k.shape[-2] > cached - tokens + 1:
            future = _future(start, k.shape[-2], cached, tokens, q.device)
            scores.unflatten(2, (-1, tokens)).masked_fill_(future, -torch.inf)
        new_best = torch.maximum(best, scores.amax(-1, keepdim=True))
        weights = scores.sub_(new_best).exp_()
        shrink = (best - new_best).exp_()
        total = total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        mixed = mixed.mul_(shrink).add_(weights @ v)
        best = new_best
        del k, v, scores, weights  # before the next tile's are made: the plan counts one
    heads = mixed.div_(total).unflatten(2, (-1, tokens))  # [B, Hkv, G, T, D]
    return heads.permute(0, 3, 1, 2, 4).flatten(2, 3).to(q.dtype)


def _future(start: int, tile: int, cached: int, tokens: int, device: torch.device) -> Tensor:
    """[T, tile]: True where the cached token comes after the query's own position."""
    keys = torch.arange(start, start + tile, device=device)
    queries = torch.arange(cached - tokens, cached, device=device)
    return keys > queries.unsqueeze(-1)
