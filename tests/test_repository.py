"""What may be committed: no large files, no logs, and packages that ship their types."""

import re
import subprocess

import pytest

from tests.paths import ROOT

LARGEST = 250 * 1024


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout of git")
    command = ["git", "ls-files", "--cached"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_no_log_and_no_large_file_is_tracked() -> None:
    files = [name for name in _tracked() if (ROOT / name).is_file()]
    assert [name for name in files if name.endswith(".log")] == []
    assert [name for name in files if (ROOT / name).stat().st_size > LARGEST] == []


def test_the_hooks_of_pre_commit_check_the_same() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert f"args: [--maxkb={LARGEST // 1024}]" in hooks
    assert r"files: \.log$" in hooks
    version = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert version
    assert f"rev: v{version[1]}" in hooks


def test_every_package_ships_its_types() -> None:
    for package in ("calculator", "glm4q", "quantize"):
        assert (ROOT / package / "py.typed").is_file()
