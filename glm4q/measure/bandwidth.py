"""How fast this machine reads memory: what no decode step can pass."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

BUFFER_BYTES = 1 << 30
"""Far more than most caches hold."""
RUNS = 7
READS_A_WAIT = {"cpu": 1, "cuda": 16}
"""Reads in a row before one wait for their end. Launching a read and waiting take the host some 30
microseconds; a fast card has read a seventh of a gigabyte meanwhile."""

READS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.sum,
    torch.amax,
    lambda buffer: torch.linalg.vector_norm(buffer.view(torch.float32)),
)
"""Each waits for memory and for nothing else; which is fastest differs between machines."""


def measure_read_bandwidth(device: torch.device, buffer_bytes: int = BUFFER_BYTES) -> float:
    """Measure the bytes a second at which all threads together read a buffer.

    The best of a few runs of each of several reads: one alone may be slower than our kernels, and a
    first run, in which a GPU's kernels are loaded, is never the best.
    """
    buffer = torch.ones(buffer_bytes // 8, dtype=torch.int64, device=device)
    times = READS_A_WAIT[device.type]
    best = min(_seconds(read, buffer, times) for _ in range(RUNS) for read in READS)
    return buffer.nbytes / best


def _seconds(read: Callable[[Tensor], Tensor], buffer: Tensor, times: int) -> float:
    """Return the seconds of one of several reads in a row."""
    begun = time.perf_counter()
    for _ in range(times):
        last = read(buffer)
    last.item()  # waits for a GPU to finish
    return (time.perf_counter() - begun) / times
