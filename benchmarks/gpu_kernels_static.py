"""Write docs/kernels.md: what the compiler says of the GPU kernels, card by card. No GPU is used.

python -m benchmarks.gpu_kernels_static
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton

from benchmarks.gpu_architectures import ARCHITECTURES
from benchmarks.gpu_compiled import WARP, Compiled, compile_for
from benchmarks.gpu_launches import (
    AMPERE,
    HEAD,
    KVS,
    LAYER,
    attention,
    decode,
    product,
    prompts,
    several,
)
from calculator.cards.gpus import Gpu, find_gpu
from calculator.model.architecture import Weight
from calculator.model.formats import KV_FORMATS, NF4, WeightFormat
from glm4q.kernels.cut import VECTOR_WORDS

FILE = Path(__file__).parents[1] / "docs" / "kernels.md"
CARDS = ("RTX 2060", "3060", "RTX 4060", "RTX 4070", "RTX 4090", "RTX 5070")
HEAD_DIM = 128
PROMPT = 512
PRODUCT_FLOPS = 2 * 16 * 8 * 16
"""Of one instruction of a tensor core, HMMA.16816."""
WHOLE = Weight("layer", LAYER, "linear")


@dataclass(frozen=True)
class Loop:
    """The main loop of a kernel that passes over weights or over the cache."""

    name: str
    made: Compiled
    bytes: int
    """What one turn of it reads, by a whole block."""

    @property
    def per_byte(self) -> float:
        """Instructions of single threads for each byte."""
        return len(self.made.loop) * WARP * self.made.launch.warps / self.bytes


def loops(capability: int) -> Iterator[Loop]:
    for weight_format, shape in (
        (WeightFormat(4, 128), LAYER),
        (WeightFormat(8, 128), LAYER),
        (WeightFormat(8, 128), HEAD),
        *([(NF4, LAYER)] if capability >= AMPERE else []),
    ):
        launch = product(shape, 1, weight_format, capability)[0]
        size = VECTOR_WORDS * int(launch.constants["BLOCK_N"]) * 4
        read = (
            size
            * sum(weight_format.parts(WHOLE).values())
            // (WHOLE.numel * weight_format.bits // 8)
        )
        name = f"{weight_format} {'head' if shape == HEAD else 'layer'}"
        yield Loop(name, compile_for(launch, capability), read)
    for kv in KVS:
        _, launch, _ = attention(kv, capability)
        token = sum(weight_format.head_bytes(HEAD_DIM) for weight_format in KV_FORMATS[kv])
        size = token * int(launch.constants["BLOCK_S"])
        yield Loop(f"attention {kv}", compile_for(launch, capability), size)


def issued(gpu: Gpu) -> float:
    """Instructions of single threads that a card can issue each second, by its data sheet."""
    return gpu.fp32_tflops * 1e12 / 2 * ARCHITECTURES[_capability(gpu)].issue_per_lane


def budget(gpu: Gpu) -> float:
    """The same while it reads a byte."""
    return issued(gpu) / gpu.bandwidth


def _capability(gpu: Gpu) -> int:
    return round(10 * float(gpu.compute_capability or 0))


def loop_rows() -> Iterator[str]:
    made = {capability: list(loops(capability)) for capability in (75, 86, 89, 120)}
    for name in CARDS:
        gpu = find_gpu(name)
        capability = _capability(gpu)
        for loop in made[capability]:
            card, can = ARCHITECTURES[capability], budget(gpu)
            resident = _resident(loop.made, capability)
            share = loop.per_byte / can
            yield (
                f"| {gpu.name} | {loop.name} | {loop.made.registers} | {loop.made.shared_bytes:,} "
                f"| {resident} of {card.warps} | {loop.per_byte:.1f} | {can:.1f} | {share:.0%} "
                f"| {'memory' if share < 1 else 'instructions'} |"
            )


def _resident(made: Compiled, capability: int) -> int:
    return ARCHITECTURES[capability].resident_warps(
        registers=made.registers, shared_bytes=made.shared_bytes, warps=made.launch.warps
    )


def prompt_rows() -> Iterator[str]:
    """Attention of a prompt, where it has tensor cores."""
    for name in CARDS:
        gpu = find_gpu(name)
        capability = _capability(gpu)
        for kv in KVS if capability >= AMPERE else ():
            made = compile_for(attention(kv, capability, PROMPT)[0], capability)
            products = sum(name.startswith("HMMA.16816") for name in made.loop)
            each = len(made.loop) / products
            can = issued(gpu) / WARP / (gpu.fp16_tflops * 1e12 / PRODUCT_FLOPS)
            yield (
                f"| {gpu.name} | {kv} | {made.registers} | {made.shared_bytes:,} "
                f"| {_resident(made, capability)} of {ARCHITECTURES[capability].warps} "
                f"| {each:.1f} | {can:.1f} | {each / can:.0%} "
                f"| {'tensor cores' if each < can else 'instructions'} |"
            )


def launch_rows() -> Iterator[str]:
    for capability in ARCHITECTURES:
        kinds = *decode(capability, KVS), *several(capability), *prompts(capability)
        for name, launch in kinds:
            made = compile_for(launch, capability)
            yield (
                f"| {capability / 10} | {name} | {' x '.join(map(str, launch.grid))} "
                f"| {launch.warps} | {made.registers} | {made.shared_bytes:,} "
                f"| {made.spilled_bytes} |"
            )


TEXT = """\
# The GPU kernels, by what their machine code says

Written by `python -m benchmarks.gpu_kernels_static`; do not edit. **No kernel has been timed, and
none has run on a GPU: there was none.** What stands here was read from machine code that Triton
{triton} and its ptxas made for each architecture. That the kernels compute what they should is
shown by Triton's interpreter on the CPU (tests/glm4q/kernels/gpu/test_triton.py); that they fit and
spill nothing (a prompt's attention up to 80 bytes of a thread's registers), by compiling them
(tests/glm4q/kernels/gpu/test_triton_compiled.py); tests/gpu waits for a device.

## Is a decoded token bound by memory?

Instructions per byte: those of the kernel's main loop, for all threads of a block, over the bytes
of weights and scales, or of the cache, that one turn reads. A card can issue: float32 lanes x
clock (half its data sheet's TFLOPS; Turing's schedulers issue twice as many) over its bandwidth.
Where the share is below 100 % the memory should be the bound, if enough loads are under way: the
warps that fit on a multiprocessor, by registers and shared memory, stand beside it. Not counted:
latency, what comes before and after the loop, bank conflicts, and instructions that take more
than one turn.

| card | loop | registers | shared bytes | warps | per byte | can issue | share | bound by |
|---|---|---:|---:|---:|---:|---:|---:|---|
{loops}

On Turing attention is bound by instructions: Triton since 3.3 uses no tensor cores there
([triton#5066](https://github.com/triton-lang/triton/pull/5066)) and multiplies in float32 lanes.
It is slower than the card could be, and gives the same numbers.
An INT4 cache costs instructions on most cards, by this count as much time as INT8's bytes on an
RTX 4070 and a third more on an RTX 3060: it is for contexts that INT8 has no room for.

## Is a prompt's attention bound by tensor cores?

Instructions of a warp for each product of a tensor core, {prompt} tokens at a time, and what the
card can issue while its tensor cores make one, by its data sheet. Below 100 % they should be the
bound; not counted is what was not counted above, and waiting for one another.

| card | cache | registers | shared bytes | warps | per product | can issue | share | bound by |
|---|---|---:|---:|---:|---:|---:|---:|---|
{prompts}

Before, torch multiplied these tiles in float32, which uses no tensor cores on any card: half their
rate at best, with scores written to memory and read again.

## How they compute

- One token by a weight (`matvec`): no tensor cores. A code is moved under the mantissa of 2^23,
  so that one logical operation and one subtraction make it a float32; products and sums are
  float32.
- Several tokens (`matmul`): tensor cores multiply activations by codes less their zero points,
  whole numbers that bfloat16 and float16 hold exactly. Scales are applied to each group's sum in
  float32.
- bitsandbytes' checkpoints run by the same two kernels. LLM.int8() is 8-bit codes with a float32
  scale for each row. NF4's codes number the 16 values of a book, which are looked up in it; it
  stays in the nearest cache. On Turing those tiles spill registers, so bitsandbytes' own kernels
  serve there, or the reference.
- Before Ampere there is no bfloat16 and GLM-4's activations overflow float16: each row is divided
  by a power of two that brings it below 2^15, and its results are multiplied by it in float32.
- Inputs are split among blocks where outputs alone do not fill a card. Each split's sums go to
  the planned scratch, and are added in a fixed order: no atomics, the same bits each time, on
  each card.
- Attention of one token (`append`, `attend`, `merge`): the context is shared out among blocks,
  each with all query heads of a key. Codes go to tensor cores as they are; vectors of bf16 are
  brought to float16's range by a power of two. The number of cached tokens is read on the device,
  so that a step is recorded once as a CUDA graph and replayed for every token.
- Keys of an INT4 cache are kept less their head's centre. What it adds to a score is a cosine and a
  sine for each pair of numbers: of the queries turned on to a tile's first position, by integers
  that wrap where turns do, and of one table for all tiles.
- Attention of several tokens, a prompt's or a draft's, is the same `attend` with more rows: blocks
  of 64 of them, each over the whole context where the rows alone fill the card. Scores stay in
  registers. Turning queries and writing the cache is left to torch's operators there. On Turing all
  of it is: their float32 products are cuBLAS's.

## What is left out

- `torch-int4-cuda` (torch's own 4-bit operator) and, for NF4, `bitsandbytes` are offered where
  Triton is not installed. Their shapes are checked without a device; of their products of one
  token the numbers are not.
- LLM.int8() by bitsandbytes' own operator. It takes as much memory as there are outliers among the
  activations, which no plan can know, and waits for the device at each layer, which no graph can
  record. Its codes run as INT8 by rows; without Triton, by the reference.
- A head in bf16 is multiplied by torch's own operators, whose workspace inside a CUDA graph
  (cuBLAS) the plan does not list.

## Every launch

A layer of 4,096 outputs and inputs, a head of 151,552 outputs, a cache with room for 8,192
tokens.

| capability | launch | blocks | warps of each | registers | shared bytes | spilled bytes |
|---:|---|---:|---:|---:|---:|---:|
{launches}

"""


def main() -> None:
    text = TEXT.format(
        triton=triton.__version__,
        loops="\n".join(loop_rows()),
        prompt=PROMPT,
        prompts="\n".join(prompt_rows()),
        launches="\n".join(launch_rows()),
    )
    FILE.write_text(text)


if __name__ == "__main__":
    main()
