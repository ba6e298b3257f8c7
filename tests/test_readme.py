"""README shows what the program prints."""

import re
from pathlib import Path

import pytest

from glm4q.cli import main
from tests.paths import ROOT

README = ROOT / "README.md"


def shown_answers() -> list[tuple[str, str]]:
    """(arguments, answer) of each `glm4q calc` that README shows."""
    text = README.read_text()
    return re.findall(r"^\$ glm4q (calc .*?)\n(.*?)(?=^\$ |^```)", text, re.M | re.S)


def test_answers_of_calc_are_current(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answers = shown_answers()
    assert answers
    for arguments, answer in answers:
        assert main(arguments.split()) == 0
        assert capsys.readouterr().out.split() == answer.split()


def test_the_picture_is_current(tmp_path: Path) -> None:
    *_, (asked, _) = shown_answers()
    arguments = asked.split()
    drawn = tmp_path / "memory.svg"
    assert main([*arguments, "--svg", str(drawn)]) == 0
    assert drawn.read_text() == (README.parent / "docs/memory.svg").read_text()
