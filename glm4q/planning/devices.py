"""Where and in which dtype to compute."""

import os

import torch

from calculator.errors import OptionError
from calculator.host.processors import usable_processors
from glm4q.kernels.dense import multiplies_bf16

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""GLM-4's activations overflow float16, so it is not offered."""


def choose_device(name: str) -> torch.device:
    """ "cuda", "cpu", or "auto": CUDA where there is one. Raises OptionError.

    Whatever computes begins here, so torch's threads, and with them ours, become no more than can
    run at the same time. OMP_NUM_THREADS is obeyed as it is.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cuda", "cpu"):
        raise OptionError(f"device must be auto, cuda or cpu, not {name}")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device cuda was asked for, and torch finds no CUDA device")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; for "auto" the fastest that holds GLM-4's range."""
    if name == "auto":
        return torch.bfloat16 if multiplies_bf16(device) else torch.float32
    if name not in DTYPES:
        raise OptionError(f"dtype must be auto, {' or '.join(DTYPES)}, not {name}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name by which `choose_dtype` finds it."""
    return {each: name for name, each in DTYPES.items()}[dtype]
