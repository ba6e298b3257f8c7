"""bitsandbytes' NF4 and LLM.int8() weights, brought to GPTQ's layout as they are read.

They are codes like any other: NF4's number the 16 values of a code book, by blocks of 64 inputs;
LLM.int8()'s count steps of a row's scale. So our kernels multiply by them, without bitsandbytes.
Layouts: bitsandbytes 0.50, functional.quantize_4bit, nn.modules.Linear8bitLt.
"""

import json

import torch
from torch import Tensor

from calculator.checkpoint.bitsandbytes_headers import STATE
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from calculator.model.formats import NF4_BLOCK, NF4_NESTED_BLOCK
from glm4q.weights.files import Files
from glm4q.weights.packing import QuantizedWeight

LARGEST_CODE = 127
ROWS = 0
"""LLM.int8()'s number of the order in which codes lie row by row; others were for older cards."""
NIBBLES = 0x0F0F0F0F


def read_bitsandbytes(stored: StoredModel, weight: Weight, files: Files) -> QuantizedWeight:
    """A weight in NF4 or LLM.int8(). Raises CheckpointError."""
    weight_format = stored.format(weight)
    blocks = weight_format.group_size or 4  # bytes of a word
    if weight.shape[1] % blocks:
        raise CheckpointError(
            f"{stored.directory}: {weight.module} has {weight.shape[1]} inputs; {weight_format} is "
            f"read in multiples of {blocks}"
        )
    parts = _Parts(stored, weight, files)
    read = _llm_int8(parts) if weight_format.scheme == "llm-int8" else _nf4(parts)
    if not read.scales.isfinite().all():
        raise CheckpointError(f"{stored.directory}: {weight.module}'s scales are not all finite")
    return read


class _Parts:
    """The tensors of one weight by their names behind its module's."""

    def __init__(self, stored: StoredModel, weight: Weight, files: Files) -> None:
        self.outputs, self.inputs = weight.shape
        self.module = weight.module
        self._stored, self._files = stored, files

    def __getitem__(self, part: str) -> Tensor:
        return self._files.read(self._stored.tensors[f"{self.module}.{part}"])

    def __contains__(self, part: str) -> bool:
        return f"{self.module}.{part}" in self._stored.tensors

    @property
    def nested(self) -> bool:
        """Whether scales are codes themselves."""
        return "weight.nested_absmax" in self

    def nested_offset(self) -> float:
        """What such scales are kept less; 0 of others. Raises CheckpointError where NF4 says of
        itself that it is another than ours.
        """
        try:
            state = json.loads(bytes(self[STATE].tolist()))
            found = state["quant_type"], state["blocksize"], state.get("nested_blocksize")
            offset = float(state["nested_offset"]) if self.nested else 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.module}.{STATE} cannot be read: {error!r}") from None
        if found != ("nf4", NF4_BLOCK, NF4_NESTED_BLOCK if self.nested else None):
            raise CheckpointError(
                f"{self.module} is quantized as {found[0]} by blocks of {found[1]} and "
                f"{found[2]}; nf4 by {NF4_BLOCK} and {NF4_NESTED_BLOCK} is read"
            )
        return offset


def _llm_int8(parts: _Parts) -> QuantizedWeight:
    if "weight_format" in parts and int(parts["weight_format"]) != ROWS:
        raise CheckpointError(
            f"{parts.module}.weight_format must be {ROWS}, rows, not {int(parts['weight_format'])}"
        )
    codes = parts["weight"].view(torch.uint8) ^ 128  # as counted from the least
    scales = parts["SCB"].float() / LARGEST_CODE
    words = codes.view(parts.outputs, parts.inputs).view(torch.int32)
    return QuantizedWeight(8, words.T.contiguous(), scales.view(1, -1))


def _nf4(parts: _Parts) -> QuantizedWeight:
    offset, scales, book = parts.nested_offset(), parts["weight.absmax"], parts["weight.quant_map"]
    if not bool((book.abs() <= 1).all()):
        raise CheckpointError(f"{parts.module}.weight.quant_map must be 16 numbers of -1 to 1")
    if parts.nested:
        nested = parts["weight.nested_absmax"].repeat_interleave(NF4_NESTED_BLOCK)[: scales.numel()]
        scales = parts["weight.nested_quant_map"][scales.flatten().int()] * nested
        scales += offset
    return QuantizedWeight(
        4,
        words_of_nf4(parts["weight"].view(parts.outputs, -1)),
        scales.view(parts.outputs, -1).T.contiguous(),
        book=book,
    )


def words_of_nf4(packed: Tensor) -> Tensor:
    """uint8 [N, K / 2], the first code of a pair in the high bits -> int32 [K / 8, N]."""
    return _swap_nibbles(packed.view(torch.int32)).T.contiguous()


def nf4_of_words(words: Tensor) -> Tensor:
    """The exact inverse of `words_of_nf4`."""
    return _swap_nibbles(words.T.contiguous()).view(torch.uint8)


def _swap_nibbles(words: Tensor) -> Tensor:
    return (words & NIBBLES) << 4 | words >> 4 & NIBBLES
