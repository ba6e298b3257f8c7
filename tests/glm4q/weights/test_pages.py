"""Pages of a file are given back once what lies there is converted."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calculator.checkpoint.headers import read_header
from glm4q.weights.files import Files
from glm4q.weights.pages import give_back

SIZE = 32 << 20


def _file_pages() -> int:
    """Bytes of mapped files that this process has in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux tells them")
def test_pages_of_a_converted_weight_leave_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    expected = torch.randn(SIZE // 2048, 1024).bfloat16()
    save_file({"weight": expected}, path)
    header = read_header(path)["weight"]
    before = _file_pages()
    with Files() as files:
        read = files.read(header)
        converted = read.float()
        mapped = _file_pages() - before
        give_back(read)
        left = _file_pages() - before
    assert mapped > 0.9 * SIZE
    assert left < 0.1 * SIZE
    assert torch.equal(converted, expected.float())
