"""How much memory of the host a program can take: what is free, and what its container allows.

/proc/meminfo is the host's even inside a container; the limits of the container, and of every group
that it is nested in, stand in the file system of control groups, of which there are two versions:
https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from calculator.dataclass import dataclass


@dataclass(frozen=True)
class GroupFiles:
    """The names of one version's files, and of what can be reclaimed in memory.stat."""

    limits: tuple[str, ...]
    usage: str
    reclaimable: tuple[str, ...]


VERSION_1 = GroupFiles(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
VERSION_2 = GroupFiles(
    ("memory.max", "memory.high"),  # above `high` a program is slowed down until it stands still
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
)


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
    groups = _lines(root / "proc" / "self" / "cgroup")
    mounts = _lines(root / "proc" / "self" / "mountinfo")
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files, kind, option = VERSION_2, "cgroup2", ""
        elif "memory" in controllers.split(","):
            files, kind, option = VERSION_1, "cgroup", "memory"
        else:
            continue
        for mount in mounts:
            if (place := _mounted(mount, kind, option)) is not None:
                yield from _allowed(root, *place, PurePosixPath(path), files)


def _mounted(line: str, kind: str, option: str) -> tuple[PurePosixPath, PurePosixPath] | None:
    """The group at the root of a mount, and the mount's directory; None for other mounts.

    https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    mount, _, system = line.partition(" - ")
    fields, names = mount.split(" "), system.split(" ")
    if len(fields) < 5 or len(names) < 3 or names[0] != kind:
        return None
    if option and option not in names[2].split(","):
        return None
    return PurePosixPath(fields[3]), PurePosixPath(fields[4].replace("\\040", " "))


def _allowed(
    root: Path,
    mounted_group: PurePosixPath,
    mount_point: PurePosixPath,
    group: PurePosixPath,
    files: GroupFiles,
) -> Iterator[int]:
    """What a group allows, and each group above it up to the root of the mount."""
    top = root / mount_point.relative_to("/")
    # In a container the mount often begins at the process's own group.
    inside = group.relative_to(mounted_group) if group.is_relative_to(mounted_group) else "."
    directory = top / inside
    while directory.is_relative_to(top):
        limits = [_number(directory / name) for name in files.limits]
        usage = _number(directory / files.usage)
        stated = [limit for limit in limits if limit is not None]
        if stated and usage is not None:
            yield min(stated) - (usage - _reclaimable(directory / "memory.stat", files))
        directory = directory.parent


def _reclaimable(stat: Path, files: GroupFiles) -> int:
    """Pages of files and of caches, which the kernel gives up before it kills a program."""
    pairs = (line.split(" ") for line in _lines(stat))
    sizes = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return sum(sizes.get(name, 0) for name in files.reclaimable)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or it says "max"."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
