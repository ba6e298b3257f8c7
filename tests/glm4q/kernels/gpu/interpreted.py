"""A process in which Triton interprets kernels on the CPU, and what tests have it do.

Triton decides at import whether it interprets, so the process is another than the tests' own. Its
interpreter keeps bfloat16 as raw bits: it rounds them towards zero and multiplies them as integers.
Both are mended here, by torch's own conversions.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.config import ModelConfig
from glm4q.kernels.cuda import Lowering
from glm4q.weights.packing import QuantizedWeight

SWITCH = "TRITON_INTERPRET"
Run = Callable[..., Any]


@contextmanager
def interpreter() -> Iterator[Run]:
    """Yields what runs a function of this module in that process and hands back its result."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    with ProcessPoolExecutor(1, get_context("spawn"), mend) as pool:
        pool.submit(os.getpid).result()  # so that it has started
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def mend() -> None:
    """Round float32 to the nearest bfloat16, and multiply bfloat16 as numbers."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    torch.set_num_threads(1)
    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, kind)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = torch.from_numpy(np.ascontiguousarray(handle.data))
        return TensorHandle(bits.view(torch.bfloat16).float().numpy(), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = cast_impl, create_dot


def multiply(
    x: Tensor, weight: QuantizedWeight, compute: torch.dtype, scratch_bytes: int
) -> Tensor:
    """By our kernels, in so much scratch and no more: float32 [M, N]."""
    from glm4q.kernels.gpu.launch import run_all
    from glm4q.kernels.gpu.products.linear import Product
    from glm4q.kernels.triton_linear import TritonLinear

    out = torch.full((len(x), weight.outputs), torch.nan)
    scratch = torch.full((scratch_bytes,), 255, dtype=torch.uint8)  # NaN in float32
    run_all(Product(x, TritonLinear().pack(weight), out, scratch, compute).launches())
    return out


def attend(
    config: ModelConfig,
    kv: str,
    given: Tensor,
    new: tuple[Tensor, ...],
    room: int,
    *,
    lowering: Lowering = Lowering.DOT,
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """New tokens after those given, [2, B, Hkv, S, D], by our kernels and by torch's operators.

    new: their q, k, v. Returns what both attended to, and all that each left in its cache.
    """
    from glm4q.kernels.attention.streaming import StreamingAttention
    from glm4q.kernels.attention.triton_attention import TritonAttention
    from glm4q.model.attention import Attention

    results = []
    for kernel in (TritonAttention(lowering), StreamingAttention()):
        memory, step, cache = _filled(config, kv, given, room, new[0].shape[1])
        layer = Attention(config).requires_grad_(False)
        for name, vectors in zip(("q", "k", "v"), new, strict=True):
            layer.get_submodule(f"{name}_proj").forward = _Puts(vectors)
        attended = layer.mix(step["normed"], step, partial(kernel, cache=cache))
        results.append((attended.clone(), memory.cache.tensors))
    (ours, our_cache), (theirs, their_cache) = results
    return ours, theirs, list(zip(our_cache, their_cache, strict=True))


def follow(
    config: ModelConfig, kv: str, prompts: list[Tensor], lowering: Lowering = Lowering.DOT
) -> tuple[Tensor, Tensor]:
    """Logits of two more tokens, one after the other, of all prompts together: by both attentions.

    The prompts, [1, T], run alone, into rows of one cache, the first into its last row.
    """
    from glm4q.kernels.attention.streaming import StreamingAttention
    from glm4q.kernels.attention.triton_attention import TritonAttention

    kernels = TritonAttention(lowering), StreamingAttention()
    by_ours, by_torch = (_logits(config, kv, prompts, kernel) for kernel in kernels)
    return by_ours, by_torch


def logits_of(stored: StoredModel, kv: str, prompt: Tensor, rest: Tensor) -> Tensor:
    """Logits of every token of a checkpoint by our attention: a prompt, [1, T], then the rest."""
    from glm4q.kernels.attention.triton_attention import TritonAttention
    from tests.glm4q.memories import all_logits, load_on_cpu, memory_of, runner_of

    dtype, room = torch.bfloat16, prompt.shape[1] + rest.shape[1]
    memory = memory_of(stored, room, dtype=dtype, kv=kv)
    attention: Any = TritonAttention()
    runner = runner_of(load_on_cpu(stored, dtype=dtype), memory, attention=attention)
    parts = (prompt, *rest.split(1, dim=1))
    return torch.cat([all_logits(runner, part).float() for part in parts], dim=1)


def _logits(config: ModelConfig, kv: str, prompts: list[Tensor], attention: Any) -> Tensor:
    from tests.glm4q.memories import memory_on_cpu, random_model, runner_of

    torch.manual_seed(7)
    model, batch, dtype = random_model(config).bfloat16(), len(prompts), torch.bfloat16
    memory = memory_on_cpu(config, 80, batch=batch, chunk=64, kv=kv, dtype=dtype)
    runner = runner_of(model, memory, attention=attention)
    runner._recordable, runner.recorded_prompts = frozenset(), ()  # a CPU records nothing
    rows = [memory.cache.row(row) for row in reversed(range(batch))]
    for prompt, row in zip(prompts, rows, strict=True):
        runner(prompt, [row])
    return torch.stack([runner(torch.full((batch, 1), token), rows).clone() for token in (3, 5)])


class _Puts:
    """A projection that returns what is wanted, whatever it is given."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __call__(self, x: Tensor, step: object, out: Tensor) -> Tensor:
        return out.copy_(self.vectors.flatten(-2))


def _filled(
    config: ModelConfig, kv: str, given: Tensor, room: int, new: int
) -> tuple[Any, Any, Any]:
    from glm4q.kernels.attention.append_tokens import prepare_attention
    from tests.glm4q.memories import memory_on_cpu

    batch, tokens = given.shape[1], given.shape[3]
    dtype = torch.bfloat16
    memory = memory_on_cpu(config, room, batch=batch, chunk=room, kv=kv, dtype=dtype)
    for tensor in memory.cache.tensors:
        tensor.zero_()
    cache = memory.cache.layers()[-1]
    for count in ([tokens] if tokens else []) + [new]:
        ((step, _),) = memory.steps(count)
        step["cached"].fill_(cache.length)
        memory.cache.write_rows(step["cache_rows"])
        prepare_attention(config, step, centered=memory.cache.centered)
        if count == tokens and not cache.length:
            cache.append_keys(cache.center_keys(step["fresh"].copy_(given[0])), step)
            cache.append_values(step["fresh"].copy_(given[1]), step)
    return memory, step, cache


def rotation_at(frequencies: Tensor, start: int) -> Tensor:
    """Cos and sin of a position, [2, pairs], as attention rotates centres by it."""
    from tests.glm4q.kernels.gpu import jitted

    out = torch.empty(2, len(frequencies))
    jitted.rotation_at[(1,)](frequencies, out, start, PAIRS=len(frequencies))
    return out


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    from glm4q.kernels.norm import TritonNorm

    step: Any = None  # the kernel needs no buffers
    return TritonNorm()(x, weight, eps, step, torch.empty_like(x))
