"""What the loops over a block of columns compute with: tensors of all columns of some rows."""

from dataclasses import dataclass

from torch import Tensor

from quantize.methods.codes import Codes


@dataclass(frozen=True)
class Compensation:
    """GPTQ's rounding of n rows of weights, column by column."""

    rows: Tensor
    """float32 [n, K]: the weights themselves."""
    left: Tensor
    """float32 [n, K], changed in place: the weights plus what makes up for errors, and of a column
    that is rounded, what rounding took from it."""
    root: Tensor
    """float32 [K, K]: R of `quantize.methods.gptq`."""
    group: Tensor
    """int32 [K]: of each column."""
    codes: Codes
    """Of a column that is rounded, its codes are written there; scales and zero points stay."""
    bits: int


@dataclass(frozen=True)
class Descent:
    """Codes of n rows of weights, which coordinate descent betters."""

    centered: Tensor
    """float32 [n, K]: codes less zero points, changed in place."""
    scales: Tensor
    """float32 [n, groups], changed in place."""
    zeros: Tensor
    """uint8 [n, groups]: zero points."""
    slope: Tensor
    """float32 [n, K]: by how much the weights are more than the numbers of their codes, times the
    Hessian."""
    hessian: Tensor
    """float32 [K, K], damped, so that its diagonal is positive."""
    bits: int
