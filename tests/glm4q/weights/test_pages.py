"""Pages of a file are given back once what lies there is converted."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calculator.checkpoint.headers import TensorHeader, read_header
from glm4q.weights import pages
from glm4q.weights.files import Files
from glm4q.weights.pages import converted, give_back, map_at_once

SIZE = 32 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux tells them")


def _written(directory: Path) -> tuple[torch.Tensor, TensorHeader]:
    """Write a weight of SIZE bytes; return it and its header in the file."""
    path = directory / "model.safetensors"
    expected = torch.randn(SIZE // 2048, 1024).bfloat16()
    save_file({"weight": expected}, path)
    return expected, read_header(path)["weight"]


def _file_pages() -> int:
    """Bytes of mapped files that this process has in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile:"))


def test_pages_of_a_read_weight_leave_memory(tmp_path: Path) -> None:
    expected, header = _written(tmp_path)
    before = _file_pages()
    with Files() as files:
        read = files.read(header)
        kept = read.clone()
        mapped = _file_pages() - before
        give_back(read)
        left = _file_pages() - before
    assert mapped > 0.9 * SIZE
    assert left < 0.1 * SIZE
    assert torch.equal(kept, expected)


def test_pages_that_are_mapped_at_once_are_in_memory_before_they_are_read(tmp_path: Path) -> None:
    expected, header = _written(tmp_path)
    before = _file_pages()
    with Files() as files:
        read = files.read(header)
        map_at_once(read)
        mapped = _file_pages() - before
        assert torch.equal(read, expected)
    if mapped < 0.1 * SIZE:
        pytest.skip("Linux maps pages at once from 5.14 on")
    assert mapped > 0.9 * SIZE


def test_a_weight_that_is_converted_never_lies_in_memory_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, header = _written(tmp_path)
    mapped: list[int] = []

    def give_back_and_count(rows: torch.Tensor) -> None:
        mapped.append(_file_pages() - before)
        give_back(rows)

    monkeypatch.setattr(pages, "give_back", give_back_and_count)
    before = _file_pages()
    with Files() as files:
        result = converted(files.read(header), torch.float32)
    assert torch.equal(result, expected.float())
    assert max(mapped) < 0.25 * SIZE
    assert converted(expected, torch.bfloat16) is expected
