"""What a CUDA device can run."""

import re
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import torch

TURING, AMPERE = (7, 5), (8, 0)
"""Compute capabilities. Turing's tensor cores know no bfloat16."""
GLUON = 3, 7
"""The first version of Triton whose Gluon our kernels were compiled by."""


class Lowering(StrEnum):
    """What the matrix products of attention are written in, by its name in `glm4q bench`."""

    DOT = "triton"
    """Triton's own `dot`."""
    MMA = "gluon"
    """The instruction of tensor cores from Ampere on, in Gluon."""
    TURING_MMA = "gluon on Turing"
    """Turing's instruction, which `dot` does not use."""


def lowering_of(capability: tuple[int, int]) -> Lowering:
    """The fastest one on a card of that compute capability."""
    return Lowering.TURING_MMA if capability < AMPERE else Lowering.MMA


def capability(device: torch.device) -> tuple[int, int] | None:
    """A CUDA device's; None of any other."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


@cache
def refuses_triton(device: torch.device) -> str | None:
    """Why a device does not run our Triton kernels; None where it does."""
    known = capability(device)
    if known is None:
        return "needs a CUDA device"
    if find_spec("triton") is None:
        return "needs Triton, which is not installed"
    if known < TURING:
        return f"needs compute capability 7.5 or more, not {known[0]}.{known[1]}"
    return None


@cache
def has_gluon() -> bool:
    """Whether the installed Triton has Gluon, its language of explicit layouts, as we use it."""
    numbers = re.match(r"(\d+)\.(\d+)", version("triton"))
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= GLUON


def has_turing_kernels(device: torch.device) -> bool:
    """Whether a device runs our kernels in Gluon, which use Turing's tensor cores."""
    return (capability(device) or AMPERE) < AMPERE and has_gluon()


def matrix_dtype(device: torch.device) -> torch.dtype:
    """What our kernels give to tensor cores: bfloat16, but float16 where a card has no bfloat16."""
    return torch.float16 if (capability(device) or AMPERE) < AMPERE else torch.bfloat16
