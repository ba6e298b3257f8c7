"""Rotary embedding and streaming attention against float64 written out in full."""

from dataclasses import replace

import pytest
import torch

from calculator.presets import PRESETS
from calculator.workspace import ATTENTION_TILE
from glm4q.cache import KVCache
from glm4q.layers.attention import attend
from glm4q.layers.rope import rotate, rotation
from tests import tiny


def test_rotation_is_exact_at_the_end_of_the_context() -> None:
    config = PRESETS["glm-4-9b-chat"]
    x = torch.randn(1, 1, 1, 128, dtype=torch.float64)
    turned = rotate(x.float(), rotation(config, torch.tensor([131_071])))[0, 0, 0]
    expected = x[0, 0, 0].clone()
    for pair in range(32):
        angle = torch.tensor(131_071 * 5e6 ** (-2 * pair / 64), dtype=torch.float64)
        a, b = x[0, 0, 0, 2 * pair : 2 * pair + 2]
        expected[2 * pair] = a * angle.cos() - b * angle.sin()
        expected[2 * pair + 1] = b * angle.cos() + a * angle.sin()
    torch.testing.assert_close(turned, expected.float())


@pytest.mark.parametrize("tokens", [1, 5, 300])
@pytest.mark.parametrize("cached", [0, ATTENTION_TILE - 1, 2 * ATTENTION_TILE - 100])
def test_streaming_attention_equals_the_whole_matrix(cached: int, tokens: int) -> None:
    config = replace(tiny.BASE, num_hidden_layers=1)
    cache = KVCache(config, cached + tokens, batch=2, dtype=torch.float32)
    (layer,) = cache.reserve(cached + tokens)
    k, v = torch.randn(2, 2, cached + tokens, 3, 32).unbind(0)
    layer.append(k, v)
    q = 3 * torch.randn(2, tokens, 6, 32)
    queries = q.double().transpose(1, 2)
    keys, values = (x.double().repeat_interleave(2, dim=2).transpose(1, 2) for x in (k, v))
    scores = queries @ keys.transpose(-1, -2) / 32**0.5
    future = torch.ones(tokens, cached + tokens).triu(cached + 1).bool()
    expected = scores.masked_fill(future, -torch.inf).softmax(-1) @ values
    torch.testing.assert_close(attend(q, layer), expected.transpose(1, 2).float())
