"""Rotary embedding, and streaming attention over every cache, against float64 written out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calculator.memory.workspace import DECODE_TILE
from calculator.model.formats import KV_FORMATS
from calculator.model.presets import PRESETS
from glm4q.kernels.attention.append_tokens import prepare_attention
from glm4q.kernels.attention.rope import prepare_rotation, rotate_
from glm4q.kernels.attention.streaming import attend
from glm4q.kernels.cpu.attention import native_attend
from glm4q.kernels.cpu.native import Native
from glm4q.kernels.cpu.records import LARGEST_INT16
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import LayerCache
from glm4q.memory.workspace import Step
from tests import tiny
from tests.glm4q.memories import memory_on_cpu
from tests.instruction_sets import NAMES, require

CONFIG = replace(tiny.BASE, num_hidden_layers=1, head_dim=128, max_position_embeddings=8192)
HADAMARD = torch.ones(1, 1, dtype=torch.float64)
for _ in range(6):
    HADAMARD = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5, HADAMARD)


def _step(memory: Memory, tokens: int, cached: int) -> Step:
    ((step, _),) = memory.steps(tokens)
    step["cached"].fill_(cached)
    prepare_attention(CONFIG, step, centered=memory.cache.centered)
    return step


def test_rotation_is_exact_at_the_end_of_the_context() -> None:
    config = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=1)
    x = torch.randn(1, 128, dtype=torch.float64)
    ((step, _),) = memory_on_cpu(config, 8).steps(1)
    step["cached"].fill_(131_071)
    prepare_rotation(config, step)
    turned = rotate_(x.float()[None], torch.empty(1, 1, 32), step)[0, 0]
    expected = x[0].clone()
    for pair in range(32):
        angle = torch.tensor(131_071 * 5e6 ** (-2 * pair / 64), dtype=torch.float64)
        a, b = x[0, 2 * pair : 2 * pair + 2]
        expected[2 * pair] = a * angle.cos() - b * angle.sin()
        expected[2 * pair + 1] = b * angle.cos() + a * angle.sin()
    torch.testing.assert_close(turned, expected.float())


def _fill(memory: Memory, keys: Tensor, values: Tensor) -> LayerCache:
    """Append [B, Hkv, S, D] in chunks. The first number of the cache is that of token 0."""
    (cache,) = memory.cache.layers()
    for k, v in zip(keys.split(memory.chunk, 2), values.split(memory.chunk, 2), strict=True):
        step = _step(memory, k.shape[2], cache.length)
        cache.append_keys(step["fresh"].copy_(k), step)
        cache.append_values(step["fresh"].copy_(v), step)
    return cache


def _cached(cache: LayerCache, memory: Memory) -> tuple[Tensor, Tensor]:
    """What the cache holds, float64 [B, Hkv, S, D], as it was before it was turned."""
    step = _step(memory, 1, 0)
    tiles = [
        tuple(each.double() for each in cache.read(start, min(start + 64, cache.length), step))
        for start in range(0, cache.length, 64)
    ]
    sides = (torch.cat(side, 2) for side in zip(*tiles, strict=True))
    k, v = (
        (side.unflatten(-1, (-1, 64)) @ HADAMARD).flatten(-2) if store.hadamard else side
        for store, side in zip((cache.keys, cache.values), sides, strict=True)
    )
    return k, v


@pytest.mark.parametrize("computed_by", ["torch", *NAMES])
@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize(
    ("cached", "tokens"),
    [
        *((0, 1), (0, 5), (0, 300), (300, 1), (300, 5), (300, 300)),
        # A prompt of 300 here would compute what the reference computes for seconds.
        *((DECODE_TILE + 100, 1), (DECODE_TILE + 100, 5), (DECODE_TILE + 100, 40)),
    ],
)
def test_streaming_attention_equals_the_whole_matrix(
    cached: int, tokens: int, kv: str, computed_by: str
) -> None:
    if computed_by != "torch":
        require(computed_by)
    room = cached + tokens
    memory = memory_on_cpu(CONFIG, room, batch=2, chunk=300, kv=kv)
    cache = _fill(memory, *torch.randn(2, 2, 3, room, 128).unbind())
    if cache.keys.centers:
        cache.keys.centers.vectors.normal_()
    step = _step(memory, tokens, cached)
    queries = 3 * torch.randn(2, 3, 2 * tokens, 128)
    step["queries"].copy_(queries / 128**0.5)
    if computed_by == "torch":
        attend(step, cache)
    else:
        native_attend(step, cache, computed_by)
    found = step["mixed"].clone()
    k, v = (each.repeat_interleave(2, dim=1) for each in _cached(cache, memory))
    asked = _as_multiplied(queries / 128**0.5, computed_by, kv).double().view(2, 6, tokens, 128)
    future = torch.ones(tokens, room).triu(cached + 1).bool()
    weights = (asked @ k.transpose(-1, -2)).masked_fill(future, -torch.inf).softmax(-1)
    expected = weights @ v
    wrong = torch.full_like(expected, 1e-5)
    if computed_by == "avx512_bf16" and kv == "bf16":  # each weight is off by 2^-8 of it at most
        wrong += 2**-8 * (weights @ v.abs())
    elif most_code := _most_code(computed_by):
        # Each weight is off by half a step of the largest: at random, seven standard deviations.
        rounding = 7 / 12**0.5 * weights.amax(-1, keepdim=True) / most_code
        if kv == "int8":
            wrong += rounding * v.square().sum(-2, keepdim=True).sqrt()
        elif _multiplies_int4(computed_by) and kv in ("k8v4", "int4"):
            # The weights have the scales in them, and codes are 8 at most.
            wrong += rounding * cache.values.tensors["scales"][..., 0].max() * 8 * room**0.5
        if _multiplies_int4(computed_by) and kv == "int4":
            wrong += _from_rounded_queries(asked, cache, memory, weights, v, expected)
    error = (found.view(expected.shape) - expected).abs()
    assert (error <= wrong + 1e-4 * expected.abs()).all()


def _most_code(computed_by: str) -> int:
    """The largest code of the queries and weights that meet INT8 codes; 0 if none are rounded."""
    if computed_by.startswith("avx512"):
        return 127 * 128
    return LARGEST_INT16 if computed_by.startswith("avx") else 0


def _multiplies_int4(computed_by: str) -> bool:
    """Whether INT4 codes meet queries and weights that are rounded to 16 bits."""
    return computed_by in ("avx2", "avx_vnni")


def _from_rounded_queries(
    queries: Tensor, cache: LayerCache, memory: Memory, weights: Tensor, v: Tensor, mixed: Tensor
) -> Tensor:
    """Seven standard deviations of what rounding queries under the Hadamard transform changes.

    Each number is off by half a step at random, so a score by a step times the length of the stored
    key, and the sum of values by each weight times that.
    """
    assert cache.keys.centers is not None
    cache.keys.centers.vectors.zero_()
    stored = _cached(cache, memory)[0].repeat_interleave(2, dim=1).square().sum(-1)
    largest = (queries.unflatten(-1, (-1, 64)) @ HADAMARD).abs().amax((-2, -1))
    step = 7 / 12**0.5 * largest / LARGEST_INT16
    squares = weights.square() * stored.unsqueeze(-2)
    spread = squares @ v.square() - 2 * (squares @ v) * mixed + squares.sum(-1, True) * mixed**2
    return step.unsqueeze(-1) * spread.clamp(min=0).sqrt()


def _as_multiplied(queries: Tensor, computed_by: str, kv: str) -> Tensor:
    """Queries, [..., D], as they meet a cache that is multiplied by words of its own kind."""
    if computed_by == "avx512_bf16" and kv == "bf16":
        return queries.bfloat16().float()
    if (code := _most_code(computed_by)) and kv in ("int8", "k8v4"):
        largest, most_code = queries.abs().amax(-1, keepdim=True), torch.tensor(float(code))
        return (queries * (most_code / largest)).round() * (largest / most_code)
    return queries


ERROR = {32: 0.0, 16: 4e-3, 8: 0.012, 4: 0.16}
"""By bits, of each vector relative to its root mean square."""


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_the_cache_holds_what_was_appended(kv: str) -> None:
    memory = memory_on_cpu(CONFIG, 100, chunk=40, kv=kv)
    given = torch.randn(2, 1, 3, 100, 128)
    given[:, :, :, 7] = 0
    given[:, :, :, 8] *= 100
    found = _cached(_fill(memory, *given.unbind()), memory)
    for vectors, cached, weight_format in zip(given, found, KV_FORMATS[kv], strict=True):
        wrong = (cached - vectors).square().mean(-1).sqrt()
        assert (wrong <= ERROR[weight_format.bits] * vectors.square().mean(-1).sqrt() + 1e-6).all()


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_appending_after_a_rewind_leaves_no_trace(kv: str) -> None:
    keys, values = torch.randn(2, 1, 3, 60, 128).unbind()
    straight = memory_on_cpu(CONFIG, 60, chunk=7, kv=kv)
    _fill(straight, keys, values)
    rewound = memory_on_cpu(CONFIG, 60, chunk=13, kv=kv)
    _fill(rewound, keys.flip(2), values.flip(2))
    _fill(rewound, keys, values)
    for first, second in zip(straight.cache.tensors, rewound.cache.tensors, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_native_attention_makes_the_same_bits_by_any_number_of_threads(kv: str) -> None:
    if not Native().instruction_set:
        pytest.skip("the native extension was not built")
    memory = memory_on_cpu(CONFIG, 1500, chunk=500, kv=kv)
    cache = _fill(memory, *torch.randn(2, 1, 3, 1500, 128).unbind())
    step, before, found = _step(memory, 1, 1499), torch.get_num_threads(), []
    step["queries"].normal_()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        native_attend(step, cache)
        found.append(step["mixed"].clone())
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
