"""How many processors a program can use: those it may run on, and what its container gives it.

A container with a limit sees all processors of its host. A program that starts a thread for each
uses up its share of a period at once, and then stands still with all of them until the next.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from calculator.host.control_groups import file_lines, group_directories


def usable_processors(root: Path = Path("/")) -> int:
    """Return how many threads can run at the same time all the time, at least 1.

    root: where the file systems proc and cgroup are mounted; tests play them.
    """
    here = len(os.sched_getaffinity(0))
    return max(min([here, *(math.ceil(share) for share in _allowed_by_groups(root))]), 1)


def _allowed_by_groups(root: Path) -> Iterator[float]:
    """The processors that each group of this process has time of, where it has a limit."""
    for version, directory in group_directories("cpu", root):
        if version == 2:
            words = " ".join(file_lines(directory / "cpu.max")).split()
        else:
            quota, period = (f"cpu.cfs_{each}_us" for each in ("quota", "period"))
            words = [*file_lines(directory / quota), *file_lines(directory / period)]
        if len(words) == 2 and all(word.isdigit() for word in words):  # not "max", and not "-1"
            yield int(words[0]) / int(words[1])
