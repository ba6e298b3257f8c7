"""examples/: few, short, and each runs on a tiny checkpoint."""

import runpy
import shutil
from pathlib import Path

import pytest

from tests.chat_checkpoint import take_likeliest
from tests.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ARGUMENTS = {
    "ask": ["CHECKPOINT", "What is GPTQ?"],
    "conversation": ["CHECKPOINT"],
    "plan": [],
    "quantize": ["CHECKPOINT", "OUTPUT"],
}


def test_examples_are_few_and_short() -> None:
    assert len(EXAMPLES) <= 6
    assert all(len(path.read_text().splitlines()) <= 40 for path in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    example: Path,
    chat_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = shutil.copytree(chat_checkpoint, tmp_path / "checkpoint")
    take_likeliest(checkpoint)
    places = {"CHECKPOINT": str(checkpoint), "OUTPUT": str(tmp_path / "output")}
    arguments = [places.get(word, word) for word in ARGUMENTS[example.stem]]
    monkeypatch.setattr("sys.argv", [str(example), *arguments])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
