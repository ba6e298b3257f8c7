"""The most memory that a piece of work takes beyond what was there before it."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that torch's allocator handed out at the fullest moment of `work`."""
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
    found = []
    for event in events:
        if event.name == "[memory]":
            found.append((event.start_time_ns, event.extra_fields.alloc_size))
        found += _allocations(event.children)
    return found
