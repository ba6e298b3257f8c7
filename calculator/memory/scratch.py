"""Workspace for multiplying by quantized weights, which are dequantized tile by tile."""

from collections.abc import Callable, Mapping
from typing import Self

from calculator.dataclass import dataclass
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat

DEQUANTIZED_NUMBERS = 1 << 21
"""Weights dequantized at once."""
NUMBER_BYTES = 8
"""Bytes of each of them: its code as int32, and its value as float32."""
OUTPUTS_MULTIPLE = 32


def dequantized_outputs(inputs: int) -> int:
    """Return how many outputs of a layer of that many inputs are dequantized at once."""
    return max(DEQUANTIZED_NUMBERS // inputs // OUTPUTS_MULTIPLE, 1) * OUTPUTS_MULTIPLE


def tile_bytes(outputs: int, inputs: int, groups: int) -> int:
    """Return the bytes of one tile: codes, values, and each group's scale and zero point."""
    rows = min(outputs, dequantized_outputs(inputs))
    return rows * (inputs * NUMBER_BYTES + groups * NUMBER_BYTES)


@dataclass(frozen=True)
class KernelNeeds:
    """Bytes that the kernels of a model need while they multiply."""

    scratch_bytes: int = 0
    """Bytes of the workspace."""
    operator_bytes: int = 0
    """Bytes that operators of torch allocate by themselves, in addition to the workspace."""


KernelNeedsOf = Callable[[int], KernelNeeds]
"""Returns the needs of a step of so many tokens."""


@dataclass(frozen=True)
class ServedWeights:
    """Weights as the kernels of one device keep them, and what these need while they multiply."""

    formats: Mapping[Weight, WeightFormat]
    needs: KernelNeedsOf

    @classmethod
    def dequantizing(cls, formats: Mapping[Weight, WeightFormat]) -> Self:
        """Return the weights as kernels keep them that dequantize them tile by tile."""
        return cls(formats, needs_of_dequantizing(formats))


def needs_of_dequantizing(formats: Mapping[Weight, WeightFormat]) -> KernelNeedsOf:
    """Return the needs of kernels that dequantize a weight tile by tile."""
    # Layers are alike: one weight of each shape and format is looked at.
    kinds = {
        (weight.shape, weight_format)
        for weight, weight_format in formats.items()
        if weight_format.is_quantized
    }
    sizes = [
        tile_bytes(outputs, inputs, weight_format.groups(inputs))
        for (outputs, inputs), weight_format in kinds
    ]

    def needs(tokens: int) -> KernelNeeds:
        return KernelNeeds(max(sizes, default=0))

    return needs
