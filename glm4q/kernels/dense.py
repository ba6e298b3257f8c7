"""Products by weights that are numbers, not codes: which kernel multiplies."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from glm4q.kernels.cpu import native
from glm4q.kernels.cpu.extension import refuses_extension
from glm4q.kernels.cpu.records import LARGEST_DENSE_NUMBERS

MOST_DENSE_ROWS = 8
"""With 16 rows torch's product of GLM-4-9B's layers is faster (benchmarks/kernels.py), if the CPU
has instructions for products of bfloat16."""


def multiplies_bf16(device: torch.device) -> bool:
    """Whether products by bfloat16 weights are as fast on the device as those by float32 or faster.

    On any CPU the native extension widens them in registers.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch_multiplies_bf16() or refuses_extension() is None


def torch_multiplies_bf16() -> bool:
    """Whether this CPU has instructions by which torch multiplies bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True)
class DenseSpec:
    """An unquantized layer: N outputs and K inputs, on one device."""

    outputs: int
    inputs: int
    dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} [{self.outputs}, {self.inputs}] on {self.device.type}"


class DenseKernel(Protocol):
    """One way to multiply by a weight of numbers."""

    @property
    def name(self) -> str:
        """The name under which `glm4q bench` shows it."""

    @property
    def rows_alike(self) -> bool:
        """Whether each of up to FEW_TOKENS rows has the bits that it has alone."""

    def refuses(self, spec: DenseSpec) -> str | None:
        """Why it does not serve, or None where it does."""

    def widens(self, rows: int, inputs: int) -> bool:
        """Whether `out` may be float32 where x is not: sums are then not rounded."""

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Multiply x [M, K] by the weight [N, K] into `out` [M, N], and add the bias."""


class NativeDense:
    """Rows by the native extension, with sums in float32; many of them by torch if it is faster."""

    name = "native"
    rows_alike = True

    def refuses(self, spec: DenseSpec) -> str | None:
        if reason := refuses_extension():
            return reason
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.dtype != torch.bfloat16:
            return f"takes bfloat16, not {str(spec.dtype).removeprefix('torch.')}"
        if spec.inputs > LARGEST_DENSE_NUMBERS:
            return f"takes up to {LARGEST_DENSE_NUMBERS} inputs, not {spec.inputs}"
        return None

    def widens(self, rows: int, inputs: int) -> bool:
        return rows <= MOST_DENSE_ROWS or not torch_multiplies_bf16()

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        if not self.widens(*x.shape):
            _torch_matmul(x, weight, bias, out)
            return
        native.matmul_dense(x, weight, out)
        if bias is not None:
            out.add_(bias)


class TorchDense:
    """torch's own product: the reference."""

    name = "torch"
    rows_alike = False

    def refuses(self, spec: DenseSpec) -> str | None:
        return None

    def widens(self, rows: int, inputs: int) -> bool:
        return False

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        _torch_matmul(x, weight, bias, out)


def _torch_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.T, out=out)
    else:
        torch.addmm(bias, x, weight.T, out=out)


DENSE: tuple[DenseKernel, ...] = (NativeDense(), TorchDense())
"""The fastest first."""
