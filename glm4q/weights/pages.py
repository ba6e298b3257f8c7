"""Pages of mapped files, which the system keeps in memory until they are given back."""

import ctypes
import mmap
import sys

import torch
from torch import Tensor

CONVERTED_ROWS = 1024
"""Rows that are converted before their pages are given back: some megabytes of GLM-4-9B's."""
MADV_POPULATE_READ = 22
"""Linux has it from 5.14 on; `mmap` does not name it."""
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
    _advise(tensor, getattr(mmap, "MADV_DONTNEED", None))


def map_at_once(tensor: Tensor) -> None:
    """Map the whole pages under a tensor of a file, all of which is read next, by one call.

    Reading them would stop at every few pages. A system that does not know the call refuses it.
    """
    _advise(tensor, MADV_POPULATE_READ if sys.platform == "linux" else None)


def _advise(tensor: Tensor, advice: int | None) -> None:
    """Tell the system what becomes of the whole pages under a tensor; nothing without an advice."""
    if _madvise is None or advice is None or not tensor.is_cpu or not tensor.is_contiguous():
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if stop > start:
        _madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice))
