"""How much memory of the host a program can take: what is free, and what its container allows.

/proc/meminfo is the host's even inside a container; the limits of the container, and of every group
that it is nested in, stand in its control groups.
"""

from collections.abc import Iterator
from pathlib import Path

from calculator.dataclass import dataclass
from calculator.host.control_groups import file_lines, group_directories


@dataclass(frozen=True)
class GroupFiles:
    """The names of one version's files, and of what can be reclaimed in memory.stat."""

    limits: tuple[str, ...]
    usage: str
    reclaimable: tuple[str, ...]


FILES = {
    1: GroupFiles(
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
    2: GroupFiles(
        # Above `high` a program is slowed down until it stands still.
        ("memory.max", "memory.high"),
        "memory.current",
        ("inactive_file", "active_file", "slab_reclaimable"),
    ),
}
"""By the version of control groups."""


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that a program can take without swapping or being killed.

    root: where the file systems proc and cgroup are mounted; tests play them. Raises OSError.
    """
    free = _free_on_host(root / "proc" / "meminfo")
    return max(min([free, *_allowed_by_groups(root)]), 0)


def _free_on_host(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        name, _, size = line.partition(":")
        if name == "MemAvailable":
            return int(size.split()[0]) * 1024
    raise OSError(f"{meminfo} says nothing of MemAvailable")


def _allowed_by_groups(root: Path) -> Iterator[int]:
    """What each memory group of this process still allows, where it has a limit."""
    for version, directory in group_directories("memory", root):
        files = FILES[version]
        limits = [_number(directory / name) for name in files.limits]
        usage = _number(directory / files.usage)
        stated = [limit for limit in limits if limit is not None]
        if stated and usage is not None:
            yield min(stated) - (usage - _reclaimable(directory / "memory.stat", files))


def _reclaimable(stat: Path, files: GroupFiles) -> int:
    """Pages of files and of caches, which the kernel gives up before it kills a program."""
    pairs = (line.split(" ") for line in file_lines(stat))
    sizes = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return sum(sizes.get(name, 0) for name in files.reclaimable)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or it says "max"."""
    lines = file_lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None
