"""Kept conversations as a user has them: --session, /save, /load, /branch, glm4q sessions."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm4q.cli import main
from glm4q.terminal.keyboard.input import Entry

OPTIONS = ("--temperature", "0", "--max-tokens", "8", "--context", "1024")


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


@pytest.fixture
def ask(chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> "Asking":
    return Asking(chat_checkpoint, capsys)


class Asking:
    """Runs `glm4q chat`, and keeps what it printed."""

    def __init__(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._checkpoint, self._capsys = checkpoint, capsys

    def __call__(self, question: str, *options: str, code: int = 0) -> tuple[str, str]:
        arguments = ["chat", str(self._checkpoint), "--prompt", question, *OPTIONS, *options]
        assert main(arguments) == code
        shown = self._capsys.readouterr()
        return shown.out, shown.err


def test_a_session_goes_on_in_another_process(
    ask: Asking, own_directories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, notes = ask("one", "--session", "notes")
    assert "reading all weights once" in notes
    _, notes = ask("two", "--session", "notes")
    assert "session notes: 2 messages, " in notes
    assert "of its cache come from disk" in notes
    assert main(["sessions"]) == 0
    listed = capsys.readouterr().out
    assert "notes" in listed
    assert "2 blocks of cached prompts" in listed
    ask("three", "--session", "other")
    assert main(["sessions", "--remove", "notes"]) == 0
    assert "notes is removed" in capsys.readouterr().out
    assert main(["sessions"]) == 0
    listed = capsys.readouterr().out
    assert "notes" not in listed
    assert "other" in listed
    assert "1 block of cached prompts" in listed
    assert not list(own_directories.rglob("notes*"))


def test_a_kept_cache_that_cannot_be_used_is_one_line(ask: Asking) -> None:
    ask("one", "--session", "notes", "--kv", "int8")
    _, notes = ask("two", "--session", "notes", "--kv", "bf16")
    (line,) = [line for line in notes.splitlines() if "saved cache" in line]
    assert "it comes from a run with --kv int8" in line


def test_a_session_that_cannot_be_written_is_an_error_behind_the_answer(
    ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, _ = ask("one")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("glm4q.chat.sessions.session_file.write_atomically", refuse)
    shown, notes = ask("one", "--session", "notes", code=2)
    assert shown == answer
    assert notes.splitlines()[-1].endswith("notes.json cannot be written: No space left on device")


def test_a_damaged_session_is_refused_and_left_alone(
    ask: Asking, own_directories: Path, chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("one", "--session", "notes")
    (file,) = own_directories.rglob("notes.json")
    file.write_bytes(file.read_bytes().replace(b"one", b"eno"))
    damaged = file.read_bytes()
    arguments = ["chat", str(chat_checkpoint), "--prompt", "two", "--session", "notes", *OPTIONS]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "notes.json is damaged: its checksum differs" in shown.err
    assert file.read_bytes() == damaged
    assert main(["sessions", "--remove", "notes"]) == 0
    assert not file.exists()


def test_a_session_that_can_never_be_kept_is_refused_before_the_model_is_sought(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["chat", "no-such-model", "--prompt", "a", "--session", "notes"]) == 2
    shown = capsys.readouterr().err
    assert "the file of session notes cannot be made" in shown
    assert "cannot be written to" in shown


def test_names_are_checked(chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "--remove", "never"]) == 2
    assert "there is no session never" in capsys.readouterr().err
    assert main(["chat", str(chat_checkpoint), "--prompt", "a", "--session", "../up"]) == 2
    assert "1 to 64 letters" in capsys.readouterr().err


class Typed:
    """What a user types, in the place of a keyboard."""

    def __init__(self, lines: list[str]) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.drafts: list[str] = []

    def read(self, draft: str = "") -> Entry:
        self.drafts.append(draft)
        try:
            return Entry.parse(next(self._lines))
        except StopIteration:
            raise EOFError from None


def _converse(
    lines: list[str],
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[str, list[str]]:
    """Type lines into a chat. Returns the screen, and what the editor began with each time."""
    typed = Typed(lines)
    monkeypatch.setattr("glm4q.commands.run.conversation._reader", lambda state: typed)
    monkeypatch.setattr("glm4q.commands.chat.read_question", lambda prompt: None)
    assert main(["chat", str(checkpoint), *OPTIONS]) == 0
    return capsys.readouterr().out, typed.drafts


def test_commands_keep_and_branch(
    chat_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["/load", "/save", "/save book", "first", "/save", "/save book", "second", "/branch b"]
    lines += ["third", "/branch main", "/branch", "/load nothing", "/load book", "/edit", "other"]
    lines += ["/edit another", "/show", "/branch main"]
    shown, drafts = _converse(lines, chat_checkpoint, monkeypatch, capsys)
    assert "the kept conversations are none" in shown
    assert shown.count("/save needs a name") == 2
    assert "there is nothing to save yet" in shown
    assert "Saved as book: 2 messages." in shown
    assert "The branch b begins here; /branch main goes back." in shown
    assert "On the branch main: 4 messages." in shown
    assert "* main\n  b\n" in shown or "  b\n* main\n" in shown
    assert "there is no session nothing; the sessions are book" in shown
    assert "book: 2 messages, " in shown
    assert "first" in drafts  # to be edited
    assert "messages   2" in shown
    assert "is on the branch main already" in shown


def test_one_answer_as_json(ask: Asking) -> None:
    limit = "--max-tokens", "3"
    plain, _ = ask("hello", *limit)
    answer = json.loads(ask("hello", "--json", *limit)[0])
    assert answer["text"] == plain.removesuffix("\n")
    assert answer["finish_reason"] == "length"
    assert answer["tokens"]["answer"] == 3
    assert answer["tokens"]["cached"] == 0
    assert answer["tool_calls"] == []
    assert set(answer["seconds"]) == {"to_first_token", "after_it"}
