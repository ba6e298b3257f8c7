"""Checks of tensors whose addresses go to C++, where a wrong one would be read or overwritten."""

from collections.abc import Iterable

import torch
from torch import Tensor

from calculator.errors import KernelError


def address(tensor: Tensor, name: str, dtype: torch.dtype, shape: Iterable[int]) -> int:
    """The address of a tensor that has this dtype and shape. Raises KernelError."""
    shape = tuple(shape)
    if tensor.dtype != dtype or tensor.shape != shape:
        raise KernelError(
            f"{name} must be {_describe(dtype, shape)}, not {_describe_tensor(tensor)}"
        )
    return _address(tensor, name)


def room(tensor: Tensor, name: str, dtype: torch.dtype, numbers: int) -> int:
    """The address of a tensor with at least so many numbers of this dtype. Raises KernelError."""
    if tensor.dtype != dtype or tensor.numel() < numbers:
        raise KernelError(
            f"{name} needs room for {numbers} numbers of {dtype}, not {_describe_tensor(tensor)}"
        )
    return _address(tensor, name)


def sizes(tensor: Tensor, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that has so many dimensions. Raises KernelError."""
    if tensor.dim() != dimensions or not tensor.numel():
        raise KernelError(
            f"{name} must have {dimensions} dimensions, none of them 0, "
            f"not {_describe_tensor(tensor)}"
        )
    return tuple(tensor.shape)


def require(holds: bool, rule: str) -> None:
    """Raise KernelError with the rule unless it holds."""
    if not holds:
        raise KernelError(rule)


def _address(tensor: Tensor, name: str) -> int:
    if not tensor.is_cpu or not tensor.is_contiguous():
        raise KernelError(
            f"{name} must lie on the CPU without gaps, not on {tensor.device} "
            f"with strides {tensor.stride()}"
        )
    place = tensor.data_ptr()
    if place % tensor.itemsize:
        raise KernelError(
            f"{name} must begin at a multiple of {tensor.itemsize} bytes, not at {place:#x}"
        )
    return place


def _describe(dtype: torch.dtype, shape: Iterable[int]) -> str:
    return f"{dtype} {list(shape)}"


def _describe_tensor(tensor: Tensor) -> str:
    return _describe(tensor.dtype, tensor.shape)
