"""A whole tiny checkpoint on disk, to describe and to damage."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def checkpoint(tiny_vocabulary_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of one that transformers wrote."""
    return Path(shutil.copytree(tiny_vocabulary_checkpoint, tmp_path / "tiny"))
