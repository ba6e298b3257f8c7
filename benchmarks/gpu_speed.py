"""Products and attention on a card, beside torch's own kernels in bfloat16.

python -m benchmarks.gpu_speed [--compiled-for 8.6]

Products replay a CUDA graph over weights that no cache holds. --compiled-for: take the kernels of
an older card (tests/gpu/compiled_for.py).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu_clock import replayed_seconds, seconds
from benchmarks.gpu_receipt import copy_rate, time_weight
from calculator.memory.plan import Planner
from calculator.memory.settings import Settings
from calculator.model.formats import NF4, WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from glm4q.kernels.attention.attention_spec import AttentionSpec
from glm4q.kernels.attention.triton_attention import TritonAttention
from glm4q.kernels.choose import ATTENTION
from glm4q.kernels.gpu.launch import run_all
from glm4q.kernels.spec import LinearSpec
from glm4q.kernels.triton_linear import TritonLinear
from glm4q.memory.allocation import Memory

CUDA, HOST = torch.device("cuda"), torch.device("cpu")
SHAPES = {"o": (4096, 4096), "gate and up": (27_392, 4096), "down": (4096, 13_696)}
FORMATS = {"INT4": WeightFormat(4, 128), "INT8": WeightFormat(8, 128), "NF4": NF4}
ROWS = 1, 8, 16, 32, 64, 512
READ_BYTES = 1 << 28
"""Bytes of the weights that are multiplied by in turns: no cache holds them."""
CONFIG = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=1, vocab_size=2048)
KVS = "bf16", "int8", "k8v4", "int4"
CONTEXT, CHUNK = 32_768, 512


def products(copied: float) -> Iterator[str]:
    """A line for each layer and format: microseconds by the number of tokens."""
    yield f"{'microseconds for so many tokens':34}" + "".join(f"{rows:9,}" for rows in ROWS)
    for name, shape in SHAPES.items():
        for kind, weight_format in FORMATS.items():
            spec = LinearSpec(*shape, weight_format, CUDA)
            if TritonLinear().refuses(spec) is None:
                size, times = time_weight(spec, ROWS, READ_BYTES)
                share = size / times[0] / copied
                yield f"{name:12}{kind:22}" + _micro(times) + f"  {share:.0%} of a copy's rate"
        yield f"{name:12}{'bf16 by torch':22}" + _micro(_dense(shape))


def _dense(shape: tuple[int, int]) -> list[float]:
    count = ceil(READ_BYTES / (2 * shape[0] * shape[1]))
    weights = [torch.randn(shape, device=CUDA).bfloat16() for _ in range(count)]
    times = []
    for rows in ROWS:
        x = torch.randn(rows, shape[1], device=CUDA).bfloat16()
        out = torch.empty(rows, shape[0], device=CUDA, dtype=torch.bfloat16)
        times.append(
            replayed_seconds([partial(torch.mm, x, weight.t(), out=out) for weight in weights])
        )
    return times


def _micro(times: list[float]) -> str:
    return "".join(f"{each * 1e6:9,.1f}" for each in times)


def attention() -> Iterator[str]:
    """A line for each cache: one token and a chunk of a prompt at the end of the context."""
    yield f"{'attention of a layer':22}{'one token':>14}{f'{CHUNK} tokens':>16}"
    for kv in KVS:
        one, several = (_attention(kv, tokens) for tokens in (1, CHUNK))
        rate = _multiplications() / several / 1e12
        yield f"{kv:22}{one * 1e6:11.1f} us{several * 1e3:13.2f} ms  {rate:.0f} TFLOPS"
    q = torch.randn(1, CONFIG.num_attention_heads, CHUNK, CONFIG.head_dim, device=CUDA).bfloat16()
    shape = 1, CONFIG.num_key_value_heads, CONTEXT, CONFIG.head_dim
    k, v = (torch.randn(shape, device=CUDA).bfloat16() for _ in range(2))
    taken = seconds(partial(scaled_dot_product_attention, q, k, v, enable_gqa=True))
    rate = _multiplications() / taken / 1e12
    yield f"{'bf16 by torch':22}{'':14}{taken * 1e3:13.2f} ms  {rate:.0f} TFLOPS"


def _multiplications() -> float:
    """Operations of the scores and of the sums of values of a chunk, two for each product."""
    return 4.0 * CONFIG.num_attention_heads * CONFIG.head_dim * CHUNK * CONTEXT


def _attention(kv: str, tokens: int) -> float:
    """Seconds of our kernels' launches from the last tokens of the context."""
    spec = AttentionSpec(CONFIG, kv, CONTEXT, CUDA, several=tokens > 1)
    kernel = next(each for each in ATTENTION if each.refuses(spec) is None)
    assert isinstance(kernel, TritonAttention)
    settings = Settings(context=CONTEXT, kv=kv, prefill_chunk=CHUNK)
    plan = Planner(CONFIG, assign_formats(CONFIG, WeightFormat(16))).plan(settings)
    memory = Memory.allocate(plan, {"gpu": CUDA, "host": HOST}, torch.bfloat16)
    for tensor in memory.cache.tensors:
        _fill(tensor)
    ((step, _),) = memory.steps(tokens)
    step["queries"].normal_()
    step["hadamard"].normal_()
    step["cached"].fill_(CONTEXT - tokens - 1)
    memory.cache.write_rows(step["cache_rows"])
    cache = memory.cache.layers()[0]
    cache.length = CONTEXT - 1
    run = partial(run_all, kernel.launches(step, cache).append_and_attend())
    return seconds(run) if tokens > 1 else replayed_seconds([run] * 4)


def _fill(tensor: Tensor) -> None:
    if tensor.is_floating_point():
        tensor.normal_(0, 0.05)
    else:
        tensor.random_(0, 100)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_speed")
    parser.add_argument("--compiled-for", metavar="CAPABILITY")
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("gpu_speed: torch finds no CUDA device\n")
        return 2
    if asked.compiled_for:
        from tests.gpu.compiled_for import compile_for

        compile_for(asked.compiled_for)
    copied = copy_rate()
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    print(
        f"{name}, code for {capability[0]}.{capability[1]}; a copy moves {copied / 1e9:,.0f} GB/s"
    )
    for line in (*products(copied), *attention()):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
