"""What multiplying by quantized weights needs of the workspace, where they are dequantized."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat

DEQUANTIZED_NUMBERS = 1 << 21
"""Weights dequantized at once."""
NUMBER_BYTES = 8
"""Of each of them: its code as int32, and its value as float32."""
OUTPUTS_MULTIPLE = 32


def dequantized_outputs(inputs: int) -> int:
    """Outputs of a layer of that many inputs that are dequantized at once."""
    return max(DEQUANTIZED_NUMBERS // inputs // OUTPUTS_MULTIPLE, 1) * OUTPUTS_MULTIPLE


def tile_bytes(outputs: int, inputs: int, groups: int) -> int:
    """One tile of a weight on its way: codes, values, and each group's scale and zero point."""
    rows = min(outputs, dequantized_outputs(inputs))
    return rows * (inputs * NUMBER_BYTES + groups * NUMBER_BYTES)


@dataclass(frozen=True)
class KernelNeeds:
    """What the kernels of a model need while they multiply."""

    scratch_bytes: int = 0
    """Of the workspace."""
    operator_bytes: int = 0
    """Beside it: what operators of torch allocate by themselves."""


KernelNeedsOf = Callable[[int], KernelNeeds]
"""Of a step of so many tokens."""


@dataclass(frozen=True)
class ServedWeights:
    """Weights as the kernels of one device keep them, and what these need while they multiply."""

    formats: Mapping[Weight, WeightFormat]
    needs: KernelNeedsOf

    @classmethod
    def dequantizing(cls, formats: Mapping[Weight, WeightFormat]) -> Self:
        """By kernels that keep weights as they are stored, and dequantize them tile by tile."""
        return cls(formats, needs_of_dequantizing(formats))


def needs_of_dequantizing(formats: Mapping[Weight, WeightFormat]) -> KernelNeedsOf:
    """Of kernels that dequantize a weight tile by tile."""
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
