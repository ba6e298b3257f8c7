"""Files that a question names: which words are files, and which are refused."""

from pathlib import Path

import pytest

from calculator.errors import OptionError
from glm4q.terminal.keyboard.files import mentioned_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("notes.txt", "two words.txt"):
        (tmp_path / name).write_text("words")
    return tmp_path


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("What is in @notes.txt?", ["notes.txt"]),
        (
            'Compare (@notes.txt) and @"two words.txt", then @notes.txt',
            ["two words.txt", "notes.txt"],
        ),
        ("Write to me@notes.txt, or @somebody", []),
        ("Was it @~nobody-of-this-name or @~?", []),
        (f"@{'a' * 300}", []),
        ("@nul\0byte", []),
    ],
)
def test_words_with_an_at_sign(here: Path, question: str, names: list[str]) -> None:
    assert mentioned_files(question) == [Path(name) for name in names]


def test_a_tilde_is_the_home_directory(here: Path) -> None:
    assert mentioned_files("@~/notes.txt") == [here / "notes.txt"]


@pytest.mark.parametrize("name", ["/nowhere/notes.txt", "~nobody-of-this-name/a", f"/{'a' * 300}"])
def test_a_path_without_a_file_is_refused(here: Path, name: str) -> None:
    with pytest.raises(OptionError, match="is not a file; nothing was sent"):
        mentioned_files(f"What is in @{name}")
