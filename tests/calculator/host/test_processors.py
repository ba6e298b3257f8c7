"""Processors that a container gives time of, over played control groups of both versions."""

from pathlib import Path

import pytest

from calculator.host.processors import usable_processors

MOUNTS = {
    2: "30 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    1: "32 22 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
}
GROUPS = {2: "0::/pod/own\n", 1: "5:cpu,cpuacct:/pod/own\n4:memory:/pod\n0::/\n"}
PERIOD = "100000"


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))


def play(root: Path, version: int, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/mountinfo": MOUNTS[version],
        "proc/self/cgroup": GROUPS[version],
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "pod", "usable"),
    [
        ("400000", "max", 4),
        ("150000", "max", 2),
        ("20000", "max", 1),
        ("max", "max", 16),
        ("9900000", "max", 16),
        ("800000", "300000", 3),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_least_of_host_and_groups_counts(
    version: int, own: str, pod: str, usable: int, tmp_path: Path
) -> None:
    files = {}
    for place, quota in {"pod/own": own, "pod": pod}.items():
        if version == 2:
            files[f"sys/fs/cgroup/{place}/cpu.max"] = f"{quota} {PERIOD}\n"
        else:
            directory = f"sys/fs/cgroup/cpu/{place}"
            files[f"{directory}/cpu.cfs_quota_us"] = quota.replace("max", "-1") + "\n"
            files[f"{directory}/cpu.cfs_period_us"] = f"{PERIOD}\n"
    assert usable_processors(play(tmp_path, version, files)) == usable


def test_without_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path) == 16
