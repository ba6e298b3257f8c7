"""Memory that a container allows, over played file systems of both versions of control groups."""

import shutil
from pathlib import Path

import pytest

from calculator.host.memory import available_bytes

HOST = 64 << 30
GIB = 1 << 30
UNLIMITED = "9223372036854771712"
"""What version 1 says where there is no limit."""


def play(root: Path, files: dict[str, str]) -> Path:
    """A root directory with /proc/meminfo of a host with 64 GiB free, and these files."""
    shutil.rmtree(root, ignore_errors=True)
    host = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {HOST // 1024} kB\n"}
    for name, text in {**host, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(
    group: str, limits: dict[str, tuple[str, int, int]], mounted: str = "/"
) -> dict[str, str]:
    """limits: for each directory below the mount, (memory.max, memory.current, inactive_file)."""
    files = {
        "proc/self/cgroup": f"0::{group}\n",
        "proc/self/mountinfo": "22 1 0:2 / /proc rw - proc proc rw\n"
        f"30 22 0:27 {mounted} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
    }
    for directory, (limit, usage, reclaimable) in limits.items():
        place = f"sys/fs/cgroup/{directory}".rstrip("/")
        files[f"{place}/memory.max"] = f"{limit}\n"
        files[f"{place}/memory.current"] = f"{usage}\n"
        files[f"{place}/memory.stat"] = (
            f"anon 5\nfile 7\ninactive_file {reclaimable}\nactive_file 0\n"
        )
    return files


def version_1(limits: dict[str, tuple[str, int, int]], mounted: str = "/") -> dict[str, str]:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n",
        "proc/self/mountinfo": f"31 22 0:28 {mounted} /sys/fs/cgroup/memory rw"
        " - cgroup cgroup rw,memory\n"
        f"32 22 0:29 {mounted} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
    }
    for directory, (limit, usage, reclaimable) in limits.items():
        place = f"sys/fs/cgroup/memory/{directory}".rstrip("/")
        files[f"{place}/memory.limit_in_bytes"] = f"{limit}\n"
        files[f"{place}/memory.usage_in_bytes"] = f"{usage}\n"
        files[f"{place}/memory.stat"] = f"cache 1\ntotal_inactive_file {reclaimable}\n"
    return files


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, HOST),
        (version_2("/", {"": (str(8 * GIB), 3 * GIB, GIB)}), 6 * GIB),
        (version_2("/", {"": ("max", 3 * GIB, GIB)}), HOST),
        (version_2("/", {"": (str(99 * GIB), 0, 0)}), HOST),
        (version_2("/", {"": (str(GIB), 2 * GIB, 0)}), 0),
        (
            version_2("/a/b", {"a": (str(4 * GIB), GIB, 0), "a/b": (str(8 * GIB), GIB, 0)}),
            3 * GIB,
        ),
        (version_2("/a/b", {"a": ("max", GIB, 0), "a/b": (str(2 * GIB), GIB, 0)}), GIB),
        (version_2("/kube/pod", {"": (str(2 * GIB), GIB, 0)}, mounted="/kube/pod"), GIB),
        (version_2("/../other", {"": (str(2 * GIB), GIB, 0)}), GIB),
        (version_1({"docker/abc": (str(8 * GIB), 3 * GIB, GIB)}), 6 * GIB),
        (version_1({"docker/abc": (UNLIMITED, 3 * GIB, 0)}), HOST),
        (version_1({"": (str(8 * GIB), 3 * GIB, GIB)}, mounted="/docker/abc"), 6 * GIB),
        (
            version_1({"docker": (str(4 * GIB), 3 * GIB, 0), "docker/abc": (UNLIMITED, GIB, 0)}),
            GIB,
        ),
    ],
    ids=[
        "no groups",
        "v2",
        "v2 without a limit",
        "v2 above the host",
        "v2 full",
        "v2 nested, the outer is less",
        "v2 nested, the inner is less",
        "v2 mounted at its own group",
        "v2 outside of what is mounted",
        "v1",
        "v1 without a limit",
        "v1 mounted at its own group",
        "v1 nested",
    ],
)
def test_the_least_of_host_and_groups_counts(
    files: dict[str, str], available: int, tmp_path: Path
) -> None:
    assert available_bytes(play(tmp_path / "root", files)) == available


def test_a_limit_that_slows_down_counts_as_well(tmp_path: Path) -> None:
    files = version_2("/", {"": (str(8 * GIB), GIB, 0)})
    files["sys/fs/cgroup/memory.high"] = f"{4 * GIB}\n"
    assert available_bytes(play(tmp_path / "root", files)) == 3 * GIB


def test_this_machine_has_some() -> None:
    assert 0 < available_bytes() < 1 << 50
