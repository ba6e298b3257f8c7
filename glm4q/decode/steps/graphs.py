"""Work on buffers that never move, recorded once as a CUDA graph and replayed.

A decode step is some thousand launches of microseconds each; replayed they cost one call.
"""

from collections.abc import Callable

import torch

WARM_UP = 1
"""Runs before the recording: they compile kernels and let libraries set themselves up."""


class Recorded:
    """Runs work plainly at first; then records it, and from there on replays the record.

    What is recorded are launches and addresses: the work must be the same each time, read all that
    changes from device memory, and never ask the device for a number.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], object]) -> None:
        """Have the work done once."""
        if self._runs < WARM_UP:
            self._runs += 1
            work()
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # launches nothing, only notes
                work()
            self._graph = graph
        self._graph.replay()
