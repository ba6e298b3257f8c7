"""Work on buffers that never move, recorded once as a CUDA graph and replayed.

A decode step is some thousand launches of microseconds each; replayed they cost one call.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch

WARM_UP = 1
"""Runs before the recording: they compile kernels and let libraries set themselves up."""


class Records:
    """Runs each kind of work plainly at first; then records it, and from there on replays that.

    What is recorded are launches and addresses: the work must be the same each time, read all that
    changes from device memory, and never ask the device for a number. Records share the memory that
    torch sets apart for them, of which each would take a segment otherwise.
    """

    def __init__(self) -> None:
        self._runs: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        """Torch's name of that memory."""

    def run(self, kind: Hashable, work: Callable[[], object]) -> None:
        """Have the work done once. kind: of work that is the same each time."""
        if self._runs[kind] < WARM_UP:
            self._runs[kind] += 1
            work()
            return
        if kind not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):  # launches nothing, only notes
                work()
            self._pool = graph.pool()
            self._graphs[kind] = graph
        self._graphs[kind].replay()
