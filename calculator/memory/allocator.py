"""What PyTorch's CUDA allocator takes from the driver beyond the bytes asked of it.

The allocator asks the driver for segments and cuts blocks from them. The sizes here are those of
its source: https://github.com/pytorch/pytorch/blob/v2.6.0/c10/cuda/CUDACachingAllocator.cpp
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

BLOCK = 512
"""Every block is a multiple of this many bytes."""
SMALL = 1 << 20
"""Requests up to here come from the pool of small segments."""
SMALL_SEGMENT = 2 << 20
LARGE_SEGMENT = 20 << 20
OWN_SEGMENT = 10 << 20
"""Requests from here on get a segment of their own, a multiple of ROUND_LARGE."""
ROUND_LARGE = 2 << 20

CACHE_SLACK = 4 * ROUND_LARGE
"""The KV cache is four tensors (codes and scales of keys and of values), and each is rounded up to
ROUND_LARGE."""

STEP_SLACK = SMALL_SEGMENT + LARGE_SEGMENT
"""The steps of a forward pass leave one segment of each pool partly unused."""


def reserved_bytes(sizes: Iterable[int]) -> int:
    """Return the bytes of the segments that hold tensors of these sizes, allocated in order."""
    reserved = 0
    free: dict[bool, list[int]] = {True: [], False: []}  # unused ends of small and large segments
    for size in sizes:
        size = round_up(size, BLOCK)
        small = size <= SMALL
        blocks = free[small]
        best = bisect_left(blocks, size)
        if best < len(blocks):
            block = blocks.pop(best)
        else:
            block = _segment(size)
            reserved += block
        rest = block - size
        if rest >= BLOCK if small else rest > SMALL:
            insort(blocks, rest)
    return reserved


def layer_block_bytes(sizes: Iterable[int]) -> int:
    """Return the bytes of one block that holds tensors of these sizes, each at its own BLOCK.

    The runtime keeps the weights of a layer on a GPU in such a block: one by one they would leave
    about 4.5 MiB of each layer's segments unused.
    """
    return sum(round_up(size, BLOCK) for size in sizes)


def round_up(size: int, multiple: int) -> int:
    """Return the least multiple that is not below `size`.

    >>> round_up(513, 512)
    1024
    """
    return -(-size // multiple) * multiple


def _segment(size: int) -> int:
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else round_up(size, ROUND_LARGE)
