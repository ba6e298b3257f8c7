"""Replies with tools in the terminal: what is shown where, and who is asked."""

import builtins
import io
from collections.abc import Generator

import pytest
from rich.console import Console

from glm4q.chat.replies import Text, Thinking
from glm4q.chat.session import ChatEvent
from glm4q.chat.tool_messages import ToolResult
from glm4q.terminal.consent import TerminalConsent
from glm4q.terminal.screen.reply import ReplyView, Think
from glm4q.tools.calls import BadCall, ToolCall

CALL = ToolCall("python", {"code": "a = 1\nprint(a)"})


def _console() -> Console:
    return Console(file=io.StringIO(), width=80)


def _shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _events() -> Generator[ChatEvent]:
    yield Thinking("Let me see.")
    yield Text("I compute.")
    yield CALL
    yield ToolResult(CALL, "1")
    bad = BadCall("x", "it is no JSON")
    yield bad
    yield ToolResult(bad, "error: it is no JSON")
    yield Text("It is 1.")


@pytest.mark.parametrize(("think", "seen"), [("show", "Let me see.\n\nI compute.\n"), ("hide", "")])
def test_answers_and_calls_go_to_their_consoles(think: Think, seen: str) -> None:
    answers, notes = _console(), _console()
    ReplyView(answers, notes, raw=True, think=think).show(_events())
    assert _shown(answers) == (seen or "I compute.\n") + "It is 1.\n"
    assert "python is called with\n  code:\n    a = 1\n    print(a)\n" in _shown(notes)
    assert "python gives\n  1\n" in _shown(notes)
    assert _shown(notes).count("it is no JSON") == 1


def test_control_characters_of_a_call_are_shown_and_not_obeyed() -> None:
    notes = _console()
    ReplyView(_console(), notes).show(event for event in [ToolCall("rm", {"path": "\x1b[2Ka"})])
    assert "\x1b" not in _shown(notes)


def test_consent_is_asked_until_it_is_given_for_always(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["what?", "n", "y", "always"])
    monkeypatch.setattr(builtins, "input", lambda *_: next(answers))
    consent = TerminalConsent(_console(), allowed=["free"], can_ask=True)
    assert consent(ToolCall("free", {}))
    assert [consent(CALL) for _ in range(4)] == [False, True, True, True]


def test_without_a_terminal_only_named_tools_run() -> None:
    notes = _console()
    consent = TerminalConsent(notes, allowed=["free"], can_ask=False)
    assert consent(ToolCall("free", {}))
    assert not consent(CALL)
    assert "--yes-tools python" in _shown(notes)
