"""bitsandbytes' NF4 and LLM.int8() weights, brought to GPTQ's layout as they are read.

They are codes like any other: NF4's number the 16 values of a code book, by blocks of 64 inputs;
LLM.int8()'s count steps of a row's scale. So our kernels multiply by them, without bitsandbytes.
Layouts: bitsandbytes 0.50, functional.quantize_4bit, nn.modules.Linear8bitLt.
"""

import json
from typing import Any

import torch
from torch import Tensor

from calculator.architecture import Weight
from calculator.bitsandbytes import STATE
from calculator.errors import CheckpointError
from calculator.formats import NF4_BLOCK, NF4_NESTED_BLOCK
from calculator.stored import StoredModel
from glm4q.files import Files
from glm4q.packing import QuantizedWeight

LARGEST_CODE = 127
NIBBLES = 0x0F0F0F0F


def read_bitsandbytes(stored: StoredModel, weight: Weight) -> QuantizedWeight:
    """A weight in NF4 or LLM.int8(). Raises CheckpointError."""
    form = stored.format(weight)
    blocks = form.group_size or 4  # bytes of a word
    if weight.shape[1] % blocks:
        raise CheckpointError(
            f"{stored.directory}: {weight.module} has {weight.shape[1]} inputs, and in {form} "
            f"chat takes multiples of {blocks}"
        )
    with _Parts(stored, weight) as parts:
        read = _llm_int8(parts) if form.scheme == "llm-int8" else _nf4(parts)
    if not read.scales.isfinite().all():
        raise CheckpointError(f"{stored.directory}: {weight.module}'s scales are not all finite")
    return read


class _Parts(Files):
    """The tensors of one weight by their names behind its module's."""

    def __init__(self, stored: StoredModel, weight: Weight) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self._stored, self._module = stored, weight.module

    def __getitem__(self, part: str) -> Tensor:
        return self.read(self._stored.tensors[f"{self._module}.{part}"])

    def __contains__(self, part: str) -> bool:
        return f"{self._module}.{part}" in self._stored.tensors

    def state(self) -> dict[str, Any]:
        """What NF4 says of itself. Raises CheckpointError where it is another NF4 than ours."""
        try:
            state = json.loads(bytes(self[STATE].tolist()))
            found = state["quant_type"], state["blocksize"], state.get("nested_blocksize")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self._module}.{STATE} cannot be read: {error!r}") from None
        if found not in (("nf4", NF4_BLOCK, None), ("nf4", NF4_BLOCK, NF4_NESTED_BLOCK)):
            raise CheckpointError(
                f"{self._module} is quantized as {found[0]} by blocks of {found[1]} and "
                f"{found[2]}; nf4 by {NF4_BLOCK} and {NF4_NESTED_BLOCK} is read"
            )
        return dict(state)


def _llm_int8(parts: _Parts) -> QuantizedWeight:
    codes = parts["weight"].view(torch.uint8) ^ 128  # as counted from the least
    scales = parts["SCB"].float() / LARGEST_CODE
    words = codes.view(parts.outputs, parts.inputs).view(torch.int32)
    return QuantizedWeight(8, words.T.contiguous(), scales.view(1, -1))


def _nf4(parts: _Parts) -> QuantizedWeight:
    state, scales = parts.state(), parts["weight.absmax"]
    if "weight.nested_absmax" in parts:
        nested = parts["weight.nested_absmax"].repeat_interleave(NF4_NESTED_BLOCK)[: scales.numel()]
        scales = parts["weight.nested_quant_map"][scales.flatten().int()] * nested
        scales += float(state["nested_offset"])
    return QuantizedWeight(
        4,
        words_of_nf4(parts["weight"].view(parts.outputs, -1)),
        scales.view(parts.outputs, -1).T.contiguous(),
        book=parts["weight.quant_map"],
    )


def words_of_nf4(packed: Tensor) -> Tensor:
    """uint8 [N, K / 2], the first code of a pair in the high bits -> int32 [K / 8, N]."""
    return _swap_nibbles(packed.view(torch.int32)).T.contiguous()


def nf4_of_words(words: Tensor) -> Tensor:
    """The exact inverse of `words_of_nf4`."""
    return _swap_nibbles(words.T.contiguous()).view(torch.uint8)


def _swap_nibbles(words: Tensor) -> Tensor:
    return (words & NIBBLES) << 4 | words >> 4 & NIBBLES
