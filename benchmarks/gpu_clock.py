"""Seconds of work on a CUDA device, by the device's own clock."""

from collections.abc import Callable, Sequence
from statistics import median

import torch

RUNS = 30
Work = Callable[[], object]


def seconds(work: Work) -> float:
    """The median of some runs, after one that compiles; what the host takes to launch is in it."""
    work()
    times = []
    for _ in range(RUNS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended) / 1e3)
    return median(times)


def replayed_seconds(works: Sequence[Work]) -> float:
    """What one of these works takes where a graph replays all of them back to back.

    A decode step is replayed so. A product of one token is over sooner than the host launches it:
    plain runs would time the host. Each work reads memory of its own, and all of them more than the
    device's cache holds, or the cache would serve the second replay.
    """
    for work in works:
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for work in works:
            work()
    return seconds(graph.replay) / len(works)
