"""How fast this machine reads memory: what no decode step can pass."""

import time

import torch

BUFFER_BYTES = 1 << 30
"""Far more than any cache holds."""
RUNS = 7


def measure_read_bandwidth(device: torch.device, buffer_bytes: int = BUFFER_BYTES) -> float:
    """Bytes a second at which all threads together read a buffer; the best of a few runs.

    A sum of 64-bit integers waits for memory and for nothing else.
    """
    buffer = torch.ones(buffer_bytes // 8, dtype=torch.int64, device=device)
    return buffer.nbytes / min(_seconds(buffer) for _ in range(RUNS))


def _seconds(buffer: torch.Tensor) -> float:
    begun = time.perf_counter()
    buffer.sum().item()  # waits for a GPU to finish
    return time.perf_counter() - begun
