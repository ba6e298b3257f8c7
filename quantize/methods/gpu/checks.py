"""Checks of tensors whose addresses go to a kernel, where a wrong one would be overwritten."""

import torch
from torch import Tensor

from calculator.errors import KernelError
from glm4q.kernels.cpu.records import LARGEST_BLOCK


def require_rows(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raise KernelError unless a tensor has this dtype and shape, and no gaps."""
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous():
        raise KernelError(
            f"{name} must be {dtype} {list(shape)} without gaps, not {tensor.dtype} "
            f"{list(tensor.shape)} with strides {tensor.stride()}"
        )


def require_matrix(tensor: Tensor, name: str, size: int) -> None:
    """Raise KernelError unless a tensor is a square float32 matrix of this size."""
    if tensor.dtype != torch.float32 or tensor.shape != (size, size):
        raise KernelError(
            f"{name} must be {torch.float32} {[size, size]}, not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )


def require_block(first: int, last: int, inputs: int) -> None:
    """Raise KernelError unless there are such columns, and no more than a program takes."""
    if not 0 <= first < last <= min(inputs, first + LARGEST_BLOCK):
        raise KernelError(
            f"a block must be 1 to {LARGEST_BLOCK} of {inputs} inputs, not {first} to {last}"
        )
