"""Pages of mapped files, which the system keeps in memory until they are given back."""

import ctypes
import mmap

import torch
from torch import Tensor

CONVERTED_ROWS = 1024
"""Rows that are converted before their pages are given back: some megabytes of GLM-4-9B's."""
_madvise = getattr(ctypes.CDLL(None), "madvise", None)


def converted(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a tensor that was read from a file and is not read again; itself if it has the dtype.

    Its pages are given back as it is converted, so that it never lies in memory twice.
    """
    if numbers.dtype == dtype:
        return numbers
    result = torch.empty_like(numbers, dtype=dtype)
    for rows, to in zip(numbers.split(CONVERTED_ROWS), result.split(CONVERTED_ROWS), strict=True):
        to.copy_(rows)
        give_back(rows)
    return result


def give_back(tensor: Tensor) -> None:
    """Free the whole pages under a tensor that was read from a file and is not read again.

    They would otherwise stay until all of the file is closed.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if _madvise is None or advice is None or not tensor.is_cpu or not tensor.is_contiguous():
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if stop > start:
        _madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice))
