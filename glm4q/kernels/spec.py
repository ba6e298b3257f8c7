"""What a kernel is asked and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calculator.formats import WeightFormat
from glm4q.packing import QuantizedWeight


@dataclass(frozen=True)
class LinearSpec:
    """A quantized layer: N outputs, K inputs, stored in `form`, computed on `device`."""

    outputs: int
    inputs: int
    form: WeightFormat
    device: torch.device

    def __str__(self) -> str:
        return f"{self.form} [{self.outputs}, {self.inputs}] on {self.device.type}"


class Kernel(Protocol):
    """One way to multiply by quantized weights."""

    name: str

    def refuses(self, spec: LinearSpec) -> str | None:
        """Why it does not take the layer; None where it does."""

    def held(self, form: WeightFormat) -> WeightFormat:
        """The format in which it keeps the weight in memory: what the plan counts."""

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        """Rearrange the weight for `matmul`, once, at load."""

    def matmul(self, x: Tensor, packed: Mapping[str, Tensor]) -> Tensor:
        """[..., K] activations by the packed [N, K] weight -> [..., N], in x's dtype."""
