"""AWQ's codes, which lie along the outputs, brought to GPTQ's layout as they are read."""

import torch
from torch import Tensor

from calculator.checkpoint.layouts.awq_headers import BITS
from glm4q.weights.module import ModuleTensors, half_scales
from glm4q.weights.packing import QuantizedWeight, pack

PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""The place of each of a word's eight codes, counted from the lowest bits: AWQ writes the codes
0, 2, 4, 6, 1, 3, 5, 7 of a row one after the other."""
WORDS_AT_ONCE = 128


def read_awq(module: ModuleTensors) -> QuantizedWeight:
    """A module in AWQ's layout. Raises CheckpointError."""
    words = module["qweight"]  # [K, N / 8]
    runs = [
        pack(unpack_outputs(words[:, first : first + WORDS_AT_ONCE]), BITS)
        for first in range(0, words.shape[1], WORDS_AT_ONCE)
    ]
    return QuantizedWeight(
        BITS,
        torch.cat(runs, dim=1),
        half_scales(module["scales"], module.name),
        pack(unpack_outputs(module["qzeros"]).T, BITS).T.contiguous(),
    )


def unpack_outputs(words: Tensor) -> Tensor:
    """int32 [n, N / 8] words -> [n, N] codes in the order of the outputs."""
    shifts = torch.tensor(PLACES, dtype=torch.int32, device=words.device) * BITS
    return (words.unsqueeze(-1) >> shifts).bitwise_and_(2**BITS - 1).flatten(1)
