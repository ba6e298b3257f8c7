"""GLM-4-9B-Chat's heads over its whole context of 131,072 tokens, against float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calculator.model.presets import PRESETS
from glm4q.kernels.attention.append_tokens import prepare_attention
from glm4q.kernels.attention.rope import prepare_rotation, prepare_tile_rotation
from glm4q.kernels.attention.streaming import attend
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import LayerCache
from glm4q.memory.kv.rotation import rotate_along
from glm4q.memory.workspace import Step
from tests.glm4q.memories import CPU, memory_on_cpu, plan_on_cpu

CONFIG = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=2)
ROOM = 131_072
FILLED = 131_064
ROWS = 32
"""Query rows of each key head that are compared with the reference."""


def _step(memory: Memory, tokens: int) -> Step:
    ((step, _),) = memory.steps(tokens)
    cache = memory.cache
    step["cached"].fill_(cache.length)
    prepare_attention(CONFIG, step, centered=cache.centered)
    return step


def _append(cache: LayerCache, tokens: int, step: Step) -> None:
    """Random keys with much in common, and values."""
    step["fresh"].normal_().add_(2)
    cache.append_keys(cache.center_keys(step["fresh"]), step)
    cache.append_values(step["fresh"].normal_(), step)


def _reference(queries: Tensor, cache: LayerCache, seen: Tensor, step: Step) -> Tensor:
    """Softmax over all that is cached, float64 [Hkv, rows, D]; seen: tokens that each row sees."""
    tile = step.shape.tile
    starts = range(0, cache.length, tile)

    def side(which: int, start: int) -> Tensor:
        return cache.read(start, min(start + tile, cache.length), step)[which][0].double()

    scores = torch.cat([queries @ side(0, start).transpose(1, 2) for start in starts], -1)
    future = torch.arange(cache.length) >= seen[:, None]
    weights = scores.masked_fill_(future, -torch.inf).softmax(-1)
    pieces = weights.split(tile, -1)
    return sum(
        (piece @ side(1, start) for piece, start in zip(pieces, starts, strict=True)),
        torch.zeros_like(queries),
    )


@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_attention_over_the_whole_context(kv: str) -> None:
    plan = plan_on_cpu(CONFIG, ROOM, dtype=torch.bfloat16, chunk=512, kv=kv)
    memory = Memory.allocate(plan, {"host": CPU}, torch.bfloat16)
    assert memory.cache.nbytes == plan.kv_cache_bytes
    assert memory.parts[0].workspace.block.nbytes == plan.arenas["host"].bytes
    while memory.cache.length < FILLED:
        tokens = min(512, FILLED - memory.cache.length)
        _append(memory.cache.layers()[1], tokens, _step(memory, tokens))
        memory.cache.advance(tokens)
    for tokens in (ROOM - FILLED - 1, 1):
        step, cache = _step(memory, tokens), memory.cache.layers()[1]
        _append(cache, tokens, step)
        queries = step["queries"].normal_().mul_(3 / 128**0.5)
        given = queries.clone()
        attend(step, cache)
        rows = torch.randperm(queries.shape[2])[:ROWS]
        seen = memory.cache.length + 1 + rows % tokens
        found = step["mixed"][0, :, rows].clone()
        memory.cache.advance(tokens)
        wanted = given[0, :, rows].double()
        if cache.keys.hadamard:
            wanted = _turned(wanted)
        expected = _reference(wanted, cache, seen, _step(memory, 1))
        if cache.values.hadamard:
            expected = _turned(expected)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def _turned(x: Tensor) -> Tensor:
    """By the Hadamard matrix of 64, which is its own inverse."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(6):
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5, matrix)
    return (x.unflatten(-1, (-1, 64)) @ matrix).flatten(-2)


def test_a_vector_is_rotated_along_to_the_end_of_the_context() -> None:
    """As positions in float64 would; bfloat16 itself is 1,000 times coarser."""
    ((step, _),) = memory_on_cpu(CONFIG, ROOM, chunk=8, dtype=torch.bfloat16, kv="int4").steps(1)
    step["cached"].zero_()
    prepare_rotation(CONFIG, step)
    prepare_tile_rotation(CONFIG, step)
    x = torch.randn(1, 2, 1, 128)
    first = ROOM - step.shape.tile
    found = rotate_along(x, first, step, step["tile_centers"])[0, :, -1]
    angles = (ROOM - 1) * 5e6 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    pairs = torch.view_as_complex(x[0, :, 0, :64].double().unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    torch.testing.assert_close(found[:, :64].double(), turned, rtol=1e-5, atol=4e-6)
    assert torch.equal(found[:, 64:], x[0, :, 0, 64:])
