"""What the system counts of this process's memory, and what serves where it does not count."""

from pathlib import Path

import pytest

from glm4q.memory import process

FEW, MANY = 8 << 20, 4 << 40


@pytest.mark.parametrize("written", [None, "Name:\tpython\n"], ids=["no file", "no entry"])
def test_the_peak_serves_where_linux_does_not_say(
    written: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some sandboxes have Linux's file without these entries."""
    if written is not None:
        (tmp_path / "status").write_text(written)
    monkeypatch.setattr(process, "STATUS", tmp_path / "status")
    assert FEW < process.resident_bytes() == process.peak_bytes() < MANY


def test_what_is_resident_now_is_at_most_the_peak() -> None:
    assert FEW < process.resident_bytes() <= process.peak_bytes() < MANY
