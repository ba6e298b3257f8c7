"""Pages of mapped files, which the system keeps in memory until they are given back."""

import ctypes
import mmap

from torch import Tensor

_madvise = getattr(ctypes.CDLL(None), "madvise", None)


def give_back(tensor: Tensor) -> None:
    """Free the whole pages under a tensor that was read from a file and is not read again.

    A weight that is converted would otherwise lie in memory twice until all of its file is closed.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if _madvise is None or advice is None or not tensor.is_cpu or not tensor.is_contiguous():
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if stop > start:
        _madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice))
