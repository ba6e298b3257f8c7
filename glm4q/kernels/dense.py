"""Products by weights that are numbers, not codes: which kernel multiplies."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from glm4q.kernels.cpu import native
from glm4q.kernels.cpu.extension import refuses_extension
from glm4q.kernels.cpu.records import LARGEST_DENSE_NUMBERS

MOST_DENSE_ROWS = 8
"""With 16 rows torch's product of GLM-4-9B's layers is faster (benchmarks/kernels.py)."""


@dataclass(frozen=True)
class DenseSpec:
    """An unquantized layer: N outputs and K inputs, on one device."""

    outputs: int
    inputs: int
    dtype: torch.dtype
    device: torch.device
    bias: bool = False

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} [{self.outputs}, {self.inputs}] on {self.device.type}"


class DenseKernel(Protocol):
    """One way to multiply by a weight of numbers."""

    @property
    def name(self) -> str:
        """The name under which `glm4q bench` shows it."""

    def refuses(self, spec: DenseSpec) -> str | None:
        """Why it does not serve, or None where it does."""

    def widens(self, rows: int, inputs: int) -> bool:
        """Whether `out` may be float32 where x is not: sums are then not rounded."""

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Multiply x [M, K] by the weight [N, K] into `out` [M, N], and add the bias."""


class NativeDense:
    """A few rows by the native extension, with sums in float32; more rows by torch."""

    name = "native"

    def refuses(self, spec: DenseSpec) -> str | None:
        if reason := refuses_extension():
            return reason
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.dtype != torch.bfloat16:
            return f"takes bfloat16, not {str(spec.dtype).removeprefix('torch.')}"
        if spec.bias:
            return "takes no bias"
        return None

    def widens(self, rows: int, inputs: int) -> bool:
        return rows <= MOST_DENSE_ROWS and rows * inputs <= LARGEST_DENSE_NUMBERS

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        if self.widens(*x.shape):
            native.matmul_dense(x, weight, out)
        else:
            torch.mm(x, weight.T, out=out)


class TorchDense:
    """torch's own product: the reference."""

    name = "torch"

    def refuses(self, spec: DenseSpec) -> str | None:
        return None

    def widens(self, rows: int, inputs: int) -> bool:
        return False

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        if bias is None:
            torch.mm(x, weight.T, out=out)
        else:
            torch.addmm(bias, x, weight.T, out=out)


DENSE: tuple[DenseKernel, ...] = (NativeDense(), TorchDense())
"""The fastest first."""
