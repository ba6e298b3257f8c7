"""llama.cpp's blocks of 32 weights with one scale, from the same codes and scales.

Q4_0 and Q8_0 are symmetric, so a block holds exactly what a symmetric group holds; the scale of a
longer group is repeated. https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.weights.packing import QuantizedWeight, middle

BLOCK = 32
OUTPUTS_AT_ONCE = 1024
BLOCK_TYPES = {4: "Q4_0", 8: "Q8_0"}


def refuse_unfit_block(weight: Weight, weight_format: WeightFormat) -> None:
    """Raise OptionError where a weight cannot be written in blocks without loss."""
    inputs = weight.shape[1]
    size = weight_format.group_size or inputs
    reason = None
    if not weight_format.symmetric:
        reason = "is asymmetric, and Q4_1 rounds the zero point"
    elif weight_format.act_order:
        reason = "orders its inputs by activation (desc_act)"
    elif size % BLOCK:
        reason = f"has groups of {size}, no multiple of {BLOCK}"
    if reason:
        raise OptionError(f"{weight.module} {reason}: GGUF cannot hold it without loss")


def block_bytes(bits: int) -> int:
    """The bytes of one block: a float16 scale and 32 codes."""
    return 2 + BLOCK * bits // 8


def as_blocks(quantized: QuantizedWeight) -> Tensor:
    """Pack a weight into blocks, uint8 [N, K / 32 * block bytes]."""
    return torch.cat(list(_runs(quantized)))


def _runs(quantized: QuantizedWeight) -> Iterator[Tensor]:
    for start in range(0, quantized.outputs, OUTPUTS_AT_ONCE):
        part = quantized.columns(start, min(start + OUTPUTS_AT_ONCE, quantized.outputs))
        codes = part.codes().T.unflatten(-1, (-1, BLOCK))  # [n, blocks, 32]
        repeats = codes.shape[1] // part.scales.shape[0]
        scales = part.scales.T.repeat_interleave(repeats, -1).unsqueeze(-1).contiguous()
        blocks = torch.cat([scales.view(torch.uint8), _packed(codes, quantized.bits)], -1)
        yield blocks.flatten(1)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Pack the codes of each block, uint8 [n, blocks, 32 * bits / 8]."""
    if bits == 8:
        return (codes - middle(bits)).to(torch.int8).view(torch.uint8)
    first, second = codes.split(BLOCK // 2, -1)
    return (first | second << 4).to(torch.uint8)
