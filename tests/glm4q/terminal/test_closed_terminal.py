"""The terminal closes: the chat ends, an MCP server ends with it, and the conversation is kept."""

import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glm4q.chat.sessions.session_file import SessionDirectory
from tests.glm4q.terminal.pseudo_terminal import PseudoTerminal
from tests.glm4q.terminal.test_chat_screen import ENDLESS, READY
from tests.paths import ROOT

SERVER = ROOT / "tests" / "glm4q" / "tools" / "paged_mcp_server.py"


def begin(checkpoint: Path, place: Path, *options: str) -> PseudoTerminal:
    """Chat with the tools of a server, in a kept conversation."""
    server = shlex.join([sys.executable, str(SERVER), "3", "2", str(place / "pid")])
    command = [sys.executable, "-m", "glm4q", "chat", str(checkpoint), "--mcp", server]
    return PseudoTerminal(
        [*command, "--session", "kept", "--temperature", "0", *options],
        cwd=place,
        XDG_STATE_HOME=str(place / "state"),
        XDG_CACHE_HOME=str(place / "cache"),
    )


def hang_up(chat: PseudoTerminal) -> None:
    """Close the terminal's window, and send SIGHUP once more, as a shell does."""
    chat.close_window()
    chat.process.kill(signal.SIGHUP)


def terminate(chat: PseudoTerminal) -> None:
    chat.process.kill(signal.SIGTERM)


@pytest.mark.parametrize(
    ("end", "answering"),
    [(hang_up, False), (hang_up, True), (terminate, True)],
    ids=["closed at the prompt", "closed in mid-answer", "terminated in mid-answer"],
)
def test_a_chat_that_is_ended_ends_its_server_and_keeps_the_conversation(
    chat_checkpoint: Path, tmp_path: Path, end: Callable[[PseudoTerminal], None], answering: bool
) -> None:
    chat = begin(chat_checkpoint, tmp_path, *ENDLESS)
    chat.wait_for(READY)
    chat.type("/set max_tokens 4\rfirst\r")
    chat.wait_for("first after")
    chat.type("/show\r")
    chat.wait_for("messages   2")
    if answering:
        chat.type("/set max_tokens 3000\r")
        chat.wait_for("max_tokens is 3000")
        chat.type("second\r")
        chat.wait_for("> second")
        chat.wait_until(lambda screen: len(screen.rpartition("> second")[2]) > 100, "an answer")
    server = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{server}").exists()
    end(chat)
    chat.process.ptyproc.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{server}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{server}").exists()
    saved = SessionDirectory(tmp_path / "state" / "glm4q" / "sessions").read("kept")
    asked = [each["content"] for each in saved.conversation.messages if each["role"] == "user"]
    assert asked == (["first", "second"] if answering else ["first"])
    assert saved.conversation.messages[-1]["role"] == "assistant"
    # Where nobody reads any more, it may be the signal or a failed write that ends the chat.
    ends = (128 + signal.SIGTERM,) if end is terminate else (128 + signal.SIGHUP, 2)
    assert chat.process.ptyproc.exitstatus in ends
