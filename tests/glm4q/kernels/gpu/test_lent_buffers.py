"""The partial results of the GPU's attention fit into the buffers that are lent for them."""

from dataclasses import replace

import pytest
import torch

from calculator.memory.arena import make_arena
from calculator.model.presets import PRESETS
from glm4q.memory.kv.dense import Dense
from glm4q.memory.workspace import Workspace

META = torch.device("meta")
"""Tensors with shapes and no memory: the buffers of GLM-4-9B cost nothing."""


@pytest.mark.parametrize("kv_heads", [1, 2, 32])
@pytest.mark.parametrize("room", [32, 300, 8000])
@pytest.mark.parametrize("tokens", [1, 5, 16, 300])
def test_partial_results_fit(tokens: int, room: int, kv_heads: int) -> None:
    pytest.importorskip("triton")
    from glm4q.kernels.gpu.attention.launches import AttentionLaunches

    config = replace(PRESETS["glm-4-9b-chat"], num_key_value_heads=kv_heads)
    arena = make_arena(config, batch=2, chunk=300, room=room, activation_bytes=2, draft=5)
    step = Workspace(arena, dtype=torch.bfloat16, device=META).step(min(tokens, room))
    shape = 1, 2, kv_heads, room, config.head_dim
    keys, values = (Dense(shape, torch.bfloat16, META) for _ in range(2))
    launches = AttentionLaunches(step, keys, values, 0)
    results = launches._results
    rows = step["queries"].shape[:3].numel()
    assert results["mixed"].numel() >= launches.splits * rows * config.head_dim
    assert results["softmax"].numel() >= 2 * launches.splits * rows
