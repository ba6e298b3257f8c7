"""bitsandbytes' NF4 and LLM.int8() weights, brought to GPTQ's layout as they are read.

Their codes are integers like any others. NF4's number the 16 values of a code book, by blocks of 64
inputs; LLM.int8()'s count steps of a row's scale. So our kernels multiply by them, without
bitsandbytes. Layouts: bitsandbytes 0.50, functional.quantize_4bit, nn.modules.Linear8bitLt.
"""

import json

import torch
from torch import Tensor

from calculator.checkpoint.layouts.bitsandbytes_headers import STATE
from calculator.errors import CheckpointError
from calculator.model.formats import NF4_BLOCK, NF4_NESTED_BLOCK
from glm4q.weights.module import ModuleTensors, all_finite
from glm4q.weights.packing import QuantizedWeight

LARGEST_CODE = 127
ROWS = 0
"""LLM.int8()'s number of the order in which codes lie row by row; others were for older cards."""
NIBBLES = 0x0F0F0F0F


def read_bitsandbytes(module: ModuleTensors) -> QuantizedWeight:
    """A module in NF4 or LLM.int8(). Raises CheckpointError."""
    weight_format = module.layout.weight_format
    blocks = weight_format.group_size or 4  # bytes of a word
    if module.inputs % blocks:
        raise CheckpointError(
            f"{module.name} has {module.inputs} inputs; {weight_format} is "
            f"read in multiples of {blocks}"
        )
    read = _llm_int8(module) if weight_format.scheme == "llm-int8" else _nf4(module)
    if not all_finite(read.scales):
        raise CheckpointError(f"{module.name}'s scales are not all finite")
    return read


def _llm_int8(module: ModuleTensors) -> QuantizedWeight:
    if "weight_format" in module and int(module["weight_format"]) != ROWS:
        raise CheckpointError(
            f"{module.name}.weight_format must be {ROWS}, rows, not {int(module['weight_format'])}"
        )
    codes = module["weight"].view(torch.uint8) ^ 128  # counted from the least code
    scales = module["SCB"].float() / LARGEST_CODE
    words = codes.view(-1, module.inputs).view(torch.int32)
    return QuantizedWeight(8, words.T.contiguous(), scales.view(1, -1))


def _nf4(module: ModuleTensors) -> QuantizedWeight:
    nested = "weight.nested_absmax" in module  # scales are codes themselves
    offset = _nested_offset(module, nested=nested)
    scales, book = module["weight.absmax"], module["weight.quant_map"]
    if not bool((book.abs() <= 1).all()):
        raise CheckpointError(f"{module.name}.weight.quant_map must be 16 numbers of -1 to 1")
    if nested:
        absmax = module["weight.nested_absmax"].repeat_interleave(NF4_NESTED_BLOCK)
        scales = (
            module["weight.nested_quant_map"][scales.flatten().int()] * absmax[: scales.numel()]
        )
        scales += offset
    outputs = module.layout.outputs
    return QuantizedWeight(
        4,
        words_of_nf4(module["weight"].view(outputs, -1)),
        scales.view(outputs, -1).T.contiguous(),
        book=book,
    )


def _nested_offset(module: ModuleTensors, *, nested: bool) -> float:
    """What to add to scales that are codes themselves; 0 for others.

    Raises CheckpointError where the state of the weight describes another NF4 than ours.
    """
    try:
        state = json.loads(bytes(module[STATE].tolist()))
        kind = state["quant_type"], state["blocksize"], state.get("nested_blocksize")
        offset = float(state["nested_offset"]) if nested else 0.0
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{module.name}.{STATE} cannot be read: {error!r}") from None
    if kind != ("nf4", NF4_BLOCK, NF4_NESTED_BLOCK if nested else None):
        raise CheckpointError(
            f"{module.name} is quantized as {kind[0]} by blocks of {kind[1]} and "
            f"{kind[2]}; nf4 by {NF4_BLOCK} and {NF4_NESTED_BLOCK} is read"
        )
    return offset


def words_of_nf4(packed: Tensor) -> Tensor:
    """uint8 [N, K / 2], the first code of a pair in the high bits -> int32 [K / 8, N]."""
    return _swap_nibbles(packed.view(torch.int32)).T.contiguous()


def nf4_of_words(words: Tensor) -> Tensor:
    """Undo `words_of_nf4` exactly."""
    return _swap_nibbles(words.T.contiguous()).view(torch.uint8)


def _swap_nibbles(words: Tensor) -> Tensor:
    return (words & NIBBLES) << 4 | words >> 4 & NIBBLES
