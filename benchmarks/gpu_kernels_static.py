"""Write benchmarks/gpu_kernels.md: the GPU kernels' machine code, card by card, without a GPU.

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
    rounding,
    several,
)
from calculator.cards.gpus import Gpu, find_gpu
from calculator.model.architecture import Weight
from calculator.model.formats import KV_FORMATS, NF4, WeightFormat
from glm4q.kernels.gpu.launch import Launch
from glm4q.weights.packing import WORD_BITS

FILE = Path(__file__).with_name("gpu_kernels.md")
CARDS = ("RTX 2060", "3060", "RTX 4060", "RTX 4070", "RTX 4090", "RTX 5070")
CAPABILITIES = 75, 86, 89, 120
HEAD_DIM = 128
PROMPT = 512
PRODUCT_FLOPS = {"HMMA.1688": 2 * 16 * 8 * 8, "HMMA.16816": 2 * 16 * 8 * 16}
"""Operations of one instruction of a tensor core: Turing's, and that of later cards."""
WHOLE = Weight("layer", LAYER, "linear")


@dataclass(frozen=True)
class Loop:
    """The main loop of a kernel that passes over weights or over the cache."""

    name: str
    compiled: Compiled
    bytes: int
    """What one iteration reads, by a whole block."""

    @property
    def per_byte(self) -> float:
        """Instructions of single threads for each byte."""
        return len(self.compiled.loop) * WARP * self.compiled.launch.warps / self.bytes


def loops(capability: int) -> Iterator[Loop]:
    for weight_format, shape in (
        (WeightFormat(4, 128), LAYER),
        (WeightFormat(8, 128), LAYER),
        (WeightFormat(8, 128), HEAD),
        *([(NF4, LAYER)] if capability >= AMPERE else []),
    ):
        launch = product(shape, 1, weight_format, capability)[0]
        size = _words_of_a_loop(launch) * 4
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


def _words_of_a_loop(launch: Launch) -> int:
    """Return how many words of a weight one iteration reads."""
    sizes = {name: int(size) for name, size in launch.constants.items() if isinstance(size, int)}
    if "BLOCK_WORDS" in sizes:
        return sizes["BLOCK_WORDS"] * sizes["BLOCK_N"]
    words = sizes["BLOCK_K"] * sizes["BITS"] // WORD_BITS
    return words * sizes["BLOCK_N"] * sizes["AHEAD"]


def issued(gpu: Gpu) -> float:
    """Instructions of single threads that a card can issue each second, by its data sheet."""
    return gpu.fp32_tflops * 1e12 / 2 * ARCHITECTURES[_capability(gpu)].issue_per_lane


def budget(gpu: Gpu) -> float:
    """Instructions of single threads that a card can issue while it reads a byte."""
    return issued(gpu) / gpu.bandwidth


def _capability(gpu: Gpu) -> int:
    return round(10 * float(gpu.compute_capability or 0))


def loop_rows() -> Iterator[str]:
    loops_of = {capability: list(loops(capability)) for capability in CAPABILITIES}
    for name in CARDS:
        gpu = find_gpu(name)
        capability = _capability(gpu)
        for loop in loops_of[capability]:
            card, can = ARCHITECTURES[capability], budget(gpu)
            resident = _resident(loop.compiled, capability)
            share = loop.per_byte / can
            yield (
                f"| {gpu.name} | {loop.name} "
                f"| {loop.compiled.registers} | {loop.compiled.shared_bytes:,} "
                f"| {resident} of {card.warps} | {loop.per_byte:.1f} | {can:.1f} | {share:.0%} "
                f"| {'memory' if share < 1 else 'instructions'} |"
            )


def _resident(compiled: Compiled, capability: int) -> int:
    return ARCHITECTURES[capability].resident_warps(
        registers=compiled.registers,
        shared_bytes=compiled.shared_bytes,
        warps=compiled.launch.warps,
    )


def prompt_loops(capability: int) -> Iterator[tuple[str, Compiled]]:
    """The main loops of a prompt's chunk: attention, and products."""
    for kv in KVS:
        yield f"attention {kv}", compile_for(attention(kv, capability, PROMPT)[1], capability)
    for weight_format in WeightFormat(4, 128), WeightFormat(8, 128):
        launches = product(LAYER, PROMPT, weight_format, capability)
        (matmul,) = (each for each in launches if each.kernel.__name__ == "matmul")
        yield f"{weight_format} layer", compile_for(matmul, capability)


def prompt_cost(compiled: Compiled) -> tuple[float, int]:
    """Instructions of a warp for each product of a tensor core, and its operations."""
    (name,) = (each for each in PRODUCT_FLOPS if any(_is(each, one) for one in compiled.loop))
    products = sum(_is(name, each) for each in compiled.loop)
    return len(compiled.loop) / products, PRODUCT_FLOPS[name]


def _is(name: str, instruction: str) -> bool:
    return instruction.startswith(f"{name}.")


def products_budget(gpu: Gpu, flops: int) -> float:
    """Instructions of a warp that a card can issue while its tensor cores make one product."""
    return issued(gpu) / WARP / (gpu.fp16_tflops * 1e12 / flops)


def prompt_rows() -> Iterator[str]:
    """A prompt's chunk, card by card."""
    loops_of = {capability: list(prompt_loops(capability)) for capability in CAPABILITIES}
    for name in CARDS:
        gpu = find_gpu(name)
        capability = _capability(gpu)
        for loop, compiled in loops_of[capability]:
            each, flops = prompt_cost(compiled)
            can = products_budget(gpu, flops)
            yield (
                f"| {gpu.name} | {loop} | {compiled.registers} | {compiled.shared_bytes:,} "
                f"| {_resident(compiled, capability)} of {ARCHITECTURES[capability].warps} "
                f"| {each:.1f} | {can:.1f} | {each / can:.0%} "
                f"| {'tensor cores' if each < can else 'instructions'} |"
            )


def launch_rows() -> Iterator[str]:
    for capability in ARCHITECTURES:
        kinds = *decode(capability, KVS), *several(capability), *prompts(capability), *rounding()
        for name, launch in kinds:
            compiled = compile_for(launch, capability)
            yield (
                f"| {capability / 10} | {name} | {' x '.join(map(str, launch.grid))} "
                f"| {launch.warps} | {compiled.registers} | {compiled.shared_bytes:,} "
                f"| {compiled.spilled_bytes} |"
            )


TEXT = """\
# The GPU kernels, by what their machine code says

Written by `python -m benchmarks.gpu_kernels_static`; do not edit. **Nothing here was timed**: what
an H200 showed is in docs/first-gpu.md. What stands here was read from machine code that Triton
{triton} and its ptxas made for each architecture. That the kernels compute what they should is
shown by Triton's interpreter on the CPU (tests/glm4q/kernels/gpu/test_triton.py); that they fit and
spill nothing (a prompt's attention up to 96 bytes of a thread's registers), by compiling them
(tests/glm4q/kernels/gpu/test_triton_compiled.py).

## Is a decoded token bound by memory?

Instructions per byte: those of the kernel's main loop, for all threads of a block, over the bytes
of weights and scales, or of the cache, that one iteration reads. A card can issue: float32 lanes x
clock (half its data sheet's TFLOPS; Turing's schedulers issue twice as many) over its bandwidth.
Where the share is below 100 % the memory should be the bound, if enough loads are under way: the
warps that fit on a multiprocessor, by registers and shared memory, stand beside it. Not counted:
latency, what comes before and after the loop, bank conflicts, and instructions that take more
than one issue slot.

| card | loop | registers | shared bytes | warps | per byte | can issue | share | bound by |
|---|---|---:|---:|---:|---:|---:|---:|---|
{loops}

On Turing attention is a kernel of its own, in Gluon: Triton since 3.3 uses no tensor cores there
([triton#5066](https://github.com/triton-lang/triton/pull/5066)), and Gluon does. By Triton's
kernel, in float32 lanes, one token took 111 to 615 % of what an RTX 2060 can issue.
Every GeForce from Turing on is bound by memory in all of these loops but one, the RTX 5050 for
laptops, whose data sheet has the lowest clock for its memory (tests/card/test_table.py goes through
the list; docs/kernels.md says what it costs).

## Is a prompt bound by tensor cores?

Instructions of a warp for each product of a tensor core, {prompt} tokens at a time, and what the
card can issue while its tensor cores make one, by its data sheet. Below 100 % they should be the
bound; not counted is what was not counted above, and waiting for one another. Turing's instruction
is half as large as that of later cards.

| card | loop | registers | shared bytes | warps | per product | can issue | share | bound by |
|---|---|---:|---:|---:|---:|---:|---:|---|
{prompts}

Torch's operators multiply attention's tiles in float32, which uses no tensor cores on any card. On
Turing products of several tokens are a kernel in Gluon too: Triton's `dot` multiplies in float32
lanes there, of which an RTX 2060 has a quarter of its tensor cores' rate.

## Every launch

A layer of 4,096 outputs and inputs, a head of 151,552 outputs, a cache with room for 8,192
tokens. The last ones are those of `glm4q quantize` for a block of columns of 1,024 rows.

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
