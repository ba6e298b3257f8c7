"""The tensors of one stored quantized module, as they are read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.checkpoint.headers import TensorHeader
from calculator.checkpoint.layouts.layout import ModuleLayout
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from glm4q.weights.files import Files


@dataclass(frozen=True)
class ModuleTensors:
    """Tensors by their names behind the module's own."""

    name: str
    inputs: int
    layout: ModuleLayout
    stored: StoredModel
    files: Files

    def __getitem__(self, part: str) -> Tensor:
        """Read one tensor. Raises CheckpointError."""
        return self.files.read(self._header(part))

    def __contains__(self, part: str) -> bool:
        return f"{self.name}.{part}" in self.stored.tensors

    def _header(self, part: str) -> TensorHeader:
        header = self.stored.tensors.get(f"{self.name}.{part}")
        if header is None:
            raise CheckpointError(f"there is no {self.name}.{part}")
        return header


def half_scales(scales: Tensor, module: str) -> Tensor:
    """Scales as float16, in which kernels hold them. Raises CheckpointError where one is lost.

    bfloat16 and float32 reach further than float16 does.
    """
    half = scales.to(torch.float16)
    if not all_finite(half):
        raise CheckpointError(f"{module}.scales are not all finite")
    if half.dtype != scales.dtype and bool(((half == 0) & (scales != 0)).any()):
        raise CheckpointError(f"{module} has a scale too small for float16")
    return half


def all_finite(numbers: Tensor) -> bool:
    """Whether no number is infinite or none at all.

    One such number makes the sum another, and torch sums as fast as memory is read; `isfinite`
    takes ten times as long, and memory. Where a sum overflows, the extremes decide.
    """
    if bool(numbers.sum().isfinite()):
        return True
    return all(map(torch.isfinite, torch.aminmax(numbers)))
