"""What a CUDA device can run."""

from functools import cache
from importlib.util import find_spec

import torch

TURING, AMPERE = (7, 5), (8, 0)
"""Compute capabilities. Turing's tensor cores know no bfloat16."""


def capability(device: torch.device) -> tuple[int, int] | None:
    """A CUDA device's; None of any other."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


@cache
def refuses_triton(device: torch.device) -> str | None:
    """Why a device does not run our Triton kernels; None where it does."""
    version = capability(device)
    if version is None:
        return "needs a CUDA device"
    if find_spec("triton") is None:
        return "needs Triton, which is not installed"
    if version < TURING:
        return f"needs compute capability 7.5 or more, not {version[0]}.{version[1]}"
    return None


def matrix_dtype(device: torch.device) -> torch.dtype:
    """What our kernels give to tensor cores: bfloat16, but float16 where a card has no bfloat16."""
    return torch.float16 if (capability(device) or AMPERE) < AMPERE else torch.bfloat16
