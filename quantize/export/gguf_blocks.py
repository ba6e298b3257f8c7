"""llama.cpp's blocks of 32 weights with one scale, from the same codes and scales.

Q4_0 and Q8_0 are symmetric, so a block holds exactly what a symmetric group holds; the scale of a
longer group is repeated. https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h.
"""

import torch
from torch import Tensor

from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.weights.packing import QuantizedWeight, middle

BLOCK = 32
SCALE_BYTES = 2
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
    return SCALE_BYTES + BLOCK * bits // 8


def as_blocks(quantized: QuantizedWeight) -> Tensor:
    """Pack a weight into blocks, uint8 [N, K / 32 * block bytes]."""
    bits, outputs = quantized.bits, quantized.outputs
    blocks = torch.empty(outputs, quantized.inputs // BLOCK, block_bytes(bits), dtype=torch.uint8)
    for start in range(0, outputs, OUTPUTS_AT_ONCE):
        stop = min(start + OUTPUTS_AT_ONCE, outputs)
        part = quantized.columns(start, stop)
        words = part.qweight.T.contiguous()  # [n, words of a row], the first code lowest in a word
        codes = words.view(torch.uint8).unflatten(-1, (-1, BLOCK * bits // 8))
        repeats = codes.shape[1] // part.scales.shape[0]
        scales = part.scales.T.repeat_interleave(repeats, -1).unsqueeze(-1).contiguous()
        blocks[start:stop, :, :SCALE_BYTES] = scales.view(torch.uint8)
        blocks[start:stop, :, SCALE_BYTES:] = _packed(codes, bits)
    return blocks.flatten(1)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Bring the bytes of each block's codes into llama.cpp's order, uint8 [n, blocks, 4 * bits].

    INT8: codes less 128. INT4: code 0 with code 16 in a byte, then 1 with 17; here 0 lies with 1.
    """
    if bits == 8:
        return codes ^ middle(bits)
    first, second = codes.split(BLOCK // 4, -1)
    return torch.stack([first & 0xF | second << 4, first >> 4 | second & 0xF0], -1).flatten(-2)
