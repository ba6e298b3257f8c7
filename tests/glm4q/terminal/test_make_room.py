"""A question that does not fit is answered after `/kv`, in a cache that holds more."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from glm4q import LLM, SamplingParams
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.chat.sessions.session_file import SessionDirectory
from glm4q.commands.run.conversation import describe_run
from glm4q.commands.run.keeping import Running
from glm4q.terminal.keyboard.input import Entry
from glm4q.terminal.loop import Terminal
from glm4q.terminal.state import State
from tests.chat_checkpoint import END


class Typist:
    """Types lines one after another, and ends the input."""

    def __init__(self, *lines: str) -> None:
        self._lines = [*lines]

    def read(self, draft: str = "") -> Entry:
        if not self._lines:
            raise EOFError
        return Entry(self._lines.pop(0))


@pytest.fixture
def state(chat_checkpoint: Path, tmp_path: Path) -> State:
    running = Running(LLM.load(chat_checkpoint, device="cpu", context=400, kv="int8"))
    params = SamplingParams(temperature=0, max_tokens=4, logit_bias={END: -100})
    session = running.llm.session(params=params)
    keeper = SessionKeeper(
        session,
        SessionDirectory(tmp_path / "sessions"),
        lambda: running.llm.keep_prefixes(tmp_path / "prefixes", limit=1 << 30),
        model="tiny",
    )
    console = Console(file=io.StringIO(), width=300)
    return State(session, params, console, describe_run(running), keeper)


def typed(state: State, *lines: str) -> str:
    """Return what the chat writes."""
    Terminal(state, Typist(*lines)).run()
    assert isinstance(state.console.file, io.StringIO)
    return state.console.file.getvalue()


def test_the_offer_is_taken_and_the_question_answered(state: State) -> None:
    long = "long " * 100
    shown = typed(state, "short", "/save first", long, "/kv bf16 900", "/show", "/save second")
    assert "/kv bf16 goes on with a cache of that format, which has room for 8,192 tokens" in shown
    assert "context 900, bf16 KV cache" in shown
    assert [each["content"] for each in state.session.messages[::2]] == ["short", long]
    assert "messages   4" in shown
    assert "of 900 tokens" in shown
    assert "Saved as second: 4 messages." in shown
    assert state.session.least_answer == 32


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/kv", "/kv needs a format, as in /kv int8 or /kv int8 32k; now it is int8"),
        ("/kv int3", "kv must be one of"),
        ("/kv int4 9000", "has room for 8,192 tokens at most in this run, not for 9,000"),
        ("/kv int4 many", "'many'"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    state: State, command: str, line: str
) -> None:
    shown = typed(state, "short", command, "again")
    assert line in shown
    assert len(state.session.messages) == 4
    assert state.session.last_answer is not None
    assert state.session.last_answer.cached_tokens > 0
