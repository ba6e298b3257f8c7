"""GPTQ's tensors of one module, whose codes are held as they lie in the file."""

import torch
from torch import Tensor

from calculator.errors import CheckpointError
from glm4q.weights.module import ModuleTensors, half_scales
from glm4q.weights.packing import WORD_BITS, QuantizedWeight, middle, pack, unpack


def read_gptq(module: ModuleTensors) -> QuantizedWeight:
    """A module in GPTQ's layout, with true zero points. Raises CheckpointError."""
    weight_format = module.layout.weight_format
    return QuantizedWeight(
        weight_format.bits,
        module["qweight"],
        half_scales(module["scales"], module.name),
        _read_zeros(module),
        module["g_idx"] if weight_format.act_order else None,
    )


def _read_zeros(module: ModuleTensors) -> Tensor | None:
    """Words of true zero points; None where all are the middle code: codes are symmetric."""
    words, offset = module["qzeros"], module.layout.zero_point_offset
    bits = module.layout.weight_format.bits
    if module.layout.weight_format.symmetric:
        if bool((words == _middle_word(bits, offset)).all()):
            return None
        raise CheckpointError(
            f"{module.name} is said to be symmetric, and its zero points are not all "
            f"{middle(bits)} (is checkpoint_format right: gptq or gptq_v2?)"
        )
    if not offset:
        return words
    zero_points = unpack(words.T, bits) + offset
    if int(zero_points.max()) >= 2**bits:
        raise CheckpointError(
            f"{module.name} has a zero point of {int(zero_points.max())}, which is no "
            f"{bits}-bit code"
        )
    return pack(zero_points, bits).T.contiguous()


def _middle_word(bits: int, offset: int) -> Tensor:
    """The word of zero points that are all the middle code, less what the layout adds."""
    return pack(torch.full((WORD_BITS // bits,), middle(bits) - offset), bits)
