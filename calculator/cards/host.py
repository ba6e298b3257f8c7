"""The memory bandwidth of this machine, measured by copying."""

import ctypes
import time
from threading import Thread

from calculator.host.processors import usable_processors

BLOCK_BYTES = 64 << 20
"""Larger than a processor's caches."""
REPEATS = 3
MAX_THREADS = 8


def measure_bandwidth() -> float:
    """Return bytes a second that all cores together read and write while they copy.

    The best of several copies counts: other programs can only slow a copy down.
    """
    threads = min(usable_processors(), MAX_THREADS)
    buffers = [
        (ctypes.create_string_buffer(BLOCK_BYTES), ctypes.create_string_buffer(BLOCK_BYTES))
        for _ in range(threads)
    ]

    def copy(pair: tuple["ctypes.Array[ctypes.c_char]", "ctypes.Array[ctypes.c_char]"]) -> None:
        # ctypes releases the interpreter's lock, so that the threads copy at the same time.
        ctypes.memmove(*pair, BLOCK_BYTES)

    best = 0.0
    for _ in range(REPEATS):
        workers = [Thread(target=copy, args=(pair,)) for pair in buffers]
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, 2 * BLOCK_BYTES * threads / (time.perf_counter() - begun))
    return best
