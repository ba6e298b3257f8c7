"""llama.cpp's blocks of 32 numbers: brought to GPTQ's layout, or to floats where they must be.

Q4_0 is d (code - 8), Q8_0 is d * code, Q4_1 is d * code + m, with d and m in float16:
https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h.
"""

import torch
from torch import Tensor

from glm4q.weights.module import ModuleTensors
from glm4q.weights.packing import QuantizedWeight, pack

BLOCK = 32
OUTPUTS_AT_ONCE = 1024


def read_gguf_module(module: ModuleTensors) -> QuantizedWeight:
    """A module in Q4_0 or Q8_0, whose grids are symmetric groups of 32."""
    bits, rows = module.layout.weight_format.bits, module["weight"]  # uint8 [N, bytes of a row]
    runs = []
    for part in rows.split(OUTPUTS_AT_ONCE):
        blocks = part.unflatten(1, (-1, 2 + BLOCK * bits // 8))
        codes = _nibbles(blocks[..., 2:]) if bits == 4 else blocks[..., 2:].int() ^ 128
        runs.append(pack(codes.flatten(1).T, bits))
    scales = rows.unflatten(1, (-1, 2 + BLOCK * bits // 8))[..., :2].contiguous()
    return QuantizedWeight(
        bits, torch.cat(runs, dim=1), scales.view(torch.float16).squeeze(-1).T.contiguous()
    )


def expand(rows: Tensor, kind: str) -> Tensor:
    """Rows of blocks as float32 numbers, [n, K]."""
    sizes = {"Q4_0": (2, 16), "Q4_1": (4, 16), "Q8_0": (2, 32)}
    front, codes = sizes[kind]
    blocks = rows.unflatten(1, (-1, front + codes))
    ends = blocks[..., :front].contiguous().view(torch.float16).float()
    scale, data = ends[..., :1], blocks[..., front:]
    if kind == "Q8_0":
        return (data.contiguous().view(torch.int8).float() * scale).flatten(1)
    numbers = _nibbles(data).float()
    shifted = numbers * scale + ends[..., 1:] if kind == "Q4_1" else (numbers - 8) * scale
    return shifted.flatten(1)


def _nibbles(data: Tensor) -> Tensor:
    """Codes of 16 bytes: the low halves first, then the high ones."""
    return torch.cat([data & 15, data >> 4], -1).int()
