"""Memory as it is counted: by the system, by the GPU's driver, and by torch's allocator."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from glm4q.memory.process import peak_bytes

CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
"""https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html"""


def reset_peak() -> int:
    """Count the peak anew, where the system can; what it starts from."""
    if CLEAR.exists():
        CLEAR.write_text(FORGET_PEAK)
    return peak_bytes()


def process_bytes(device: torch.device) -> int | None:
    """Bytes of the GPU that this process holds, CUDA context included; None where none is told.

    By process and not by what is free: other programs come and go meanwhile.
    """
    if device.type != "cuda":
        return None
    import pynvml as nvml

    try:
        nvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None  # a container may hide the driver's list; torch's own counts remain
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return own[0] if own else None


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes that torch's allocator hands out while `work` runs, beyond those before it."""
    return _cuda_peak(work, device) if device.type == "cuda" else _cpu_peak(work)


def _cuda_peak(work: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(work: Callable[[], object]) -> int:
    """The CPU's allocator keeps no count of its own: the profiler sees each request."""
    profiled = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _silent():
        profiled.start()
    try:
        work()
    finally:
        with _silent():
            profiled.stop()
    assert profiled.profiler is not None
    results = profiled.profiler.kineto_results
    assert results is not None
    events = results.experimental_event_tree()
    held = peak = 0
    for _, size in sorted(_allocations(events), key=lambda each: each[0]):
        held += size
        peak = max(peak, held)
    return peak


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler's library writes lines of its own to standard error; no setting stops it."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _allocations(events: Iterable[Any]) -> list[tuple[int, int]]:
    """(time, bytes) of everything allocated and, below 0, freed."""
    allocations = []
    for event in events:
        if event.name == "[memory]":
            allocations.append((event.start_time_ns, event.extra_fields.alloc_size))
        allocations += _allocations(event.children)
    return allocations
