"""The control groups by which a container limits its programs, of both versions:
https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def group_directories(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Find the directories of the groups that a controller limits this process by.

    Yields a version, 1 or 2, and the directory of a group: the process's own, then each above it,
    up to the root of the mount. controller: such as "memory". root: where the file systems proc
    and cgroup are mounted; tests play them.
    """
    mounts = file_lines(root / "proc" / "self" / "mountinfo")
    for line in file_lines(root / "proc" / "self" / "cgroup"):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            version, kind, option = 2, "cgroup2", ""
        elif controller in controllers.split(","):
            version, kind, option = 1, "cgroup", controller
        else:
            continue
        for mount in mounts:
            if (place := _mounted(mount, kind, option)) is not None:
                for directory in _upward(root, *place, PurePosixPath(group)):
                    yield version, directory


def file_lines(path: Path) -> list[str]:
    """Return the lines of a file; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


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


def _upward(
    root: Path, mounted_group: PurePosixPath, mount_point: PurePosixPath, group: PurePosixPath
) -> Iterator[Path]:
    top = root / mount_point.relative_to("/")
    # In a container the mount often begins at the process's own group.
    inside = group.relative_to(mounted_group) if group.is_relative_to(mounted_group) else "."
    directory = top / inside
    while directory.is_relative_to(top):
        yield directory
        directory = directory.parent
