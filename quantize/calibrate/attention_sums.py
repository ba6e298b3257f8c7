"""Sums over tokens for queries, keys and values, by what attention makes of errors in them.

The three linears read one input. In the sums for q_proj all tokens count alike. In those for k_proj
a token counts by the size of its gradient. Those for v_proj are over inputs as attention mixes
them, since that is what reads an error of a value (quantize.calibrate.attention_errors).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantize.calibrate.attention_errors import Measured
from quantize.calibrate.stages import STAGES
from quantize.methods.moments import Moments

QUERIES, KEYS, VALUES = STAGES[0].linears
UNMIXED = 0.3
"""The share of sums over inputs that are not mixed, in those for values: on another text a head may
attend to single tokens where it mixes many here."""

Sums = dict[tuple[str, ...], list[Moments]]
"""The sums of each group of linears: over calibrating samples and, where some check, over those."""


def add_by_attention(
    sums: Sums, kind: int, source: Tensor, quantized: Tensor, measured: Sequence[Measured]
) -> None:
    """Count a batch for keys and for values.

    kind: which sums of a group. source, quantized: the inputs in both streams, [B, T, C].
    """
    counts = torch.stack([each.sizes[KEYS] for each in measured]).sqrt().unsqueeze(-1)
    shares = torch.stack([each.shares for each in measured])

    def counted(inputs: Tensor) -> Tensor:
        return _flat(inputs.float() * counts, inputs.dtype)

    def mixed(inputs: Tensor) -> Tensor:
        return _flat(shares @ inputs.float(), inputs.dtype)

    sums[KEYS,][kind].add(counted(source), counted(quantized))
    sums[VALUES,][kind].add(mixed(source), mixed(quantized))


def add_unmixed(sums: Sums) -> None:
    """Add a share of the inputs as they are to the sums for values, when all tokens are counted."""
    for mixed, plain in zip(sums[VALUES,], sums[QUERIES,], strict=True):
        mixed.blend(plain, UNMIXED)


def _flat(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, C] -> [B * T, C] in that dtype, unless it is float16, where small numbers vanish."""
    return (inputs if dtype == torch.float16 else inputs.to(dtype)).flatten(0, 1)
