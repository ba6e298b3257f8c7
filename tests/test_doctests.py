"""Examples in docstrings run. None is skipped."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.paths import ROOT

FILES = [
    path.relative_to(ROOT)
    for package in ("calculator", "glm4q", "quantize")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_in_docstrings_run(file: Path) -> None:
    assert "+SKIP" not in (ROOT / file).read_text(encoding="utf-8")
    module = importlib.import_module(".".join(file.with_suffix("").parts))
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
