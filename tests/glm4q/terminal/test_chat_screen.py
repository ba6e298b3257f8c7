"""A chat in a pseudo-terminal: what a user types, and what stands on the screen."""

import re
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat_checkpoint import END
from tests.glm4q.terminal.pseudo_terminal import PseudoTerminal

READY = ", plan "
"""Stands in the footer, so that a prompt waits for keys."""


ENDLESS = ("--max-tokens", "3000", "--no-loop-guard", "--logit-bias", f"{END}=-100")
"""Options with which an answer at temperature 0 has 3,000 tokens."""


def start_chat(
    checkpoint: Path, state: Path, *options: str, columns: int = 100, **environment: Any
) -> PseudoTerminal:
    command = [sys.executable, "-m", "glm4q", "chat", str(checkpoint), "--seed", "1", *options]
    return PseudoTerminal(
        command, columns=columns, cwd=state, XDG_STATE_HOME=str(state / "xdg"), **environment
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def chat(chat_checkpoint: Path, state: Path) -> Iterator[PseudoTerminal]:
    terminal = start_chat(chat_checkpoint, state, *ENDLESS)
    terminal.wait_for(READY)
    yield terminal
    terminal.type("\x15/quit\r")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.screen()
    assert "CPR" not in terminal.screen()


def test_settings_change_by_the_code_that_checks_options(chat: PseudoTerminal) -> None:
    chat.type("/set temperature 0.3\r")
    chat.wait_for("temperature is 0.3")
    chat.type("/set top_p 9\r")
    chat.wait_for("top_p must be above 0 and at most 1, not 9")
    chat.type("/set top_k few\r")
    chat.wait_for("top_k must be a whole number, not 'few'")
    chat.type("/set max_tokens 8\r")
    chat.wait_for("max_tokens is 8")
    chat.type("/show\r")
    assert "temperature 0.3, top_p 0.8" in chat.wait_for("messages   0")


def test_a_paste_is_one_message(chat: PseudoTerminal) -> None:
    chat.type("\x1b[200~first line\nsecond line\x1b[201~")
    chat.wait_for("second line")
    chat.type("\r")
    chat.wait_for("first after")
    chat.type("/show\r")
    chat.wait_for("messages   2")


def test_a_file_is_counted_and_put_into_the_question(chat: PseudoTerminal, state: Path) -> None:
    (state / "notes.txt").write_text("hello world")
    chat.type("What is @note\t")
    chat.wait_for("What is @notes.txt")
    chat.type("?\r")
    chat.wait_for("notes.txt: 11 tokens")
    chat.type("/undo\r")
    chat.wait_for("Forgotten: File notes.txt: hello world What is @notes.txt?")
    chat.type("@missing/file.txt?\r")
    chat.wait_for("missing/file.txt? is not a file; nothing was sent")


def test_ctrl_c_stops_an_answer_and_keys_wait(chat: PseudoTerminal) -> None:
    chat.type("/reset\r")
    chat.wait_for("forgotten")
    chat.type("/set max_tokens 3000\r/set temperature 0\r")
    chat.wait_for("temperature is 0.")
    chat.type("go\r")
    chat.wait_for("> go")
    # Once the answer has begun the editor has ended, and Ctrl-C is no key of its any more.
    chat.wait_until(_is_answering, "an answer")
    chat.type("/sta")  # into the answer
    chat.resize(60, 40)
    chat.type("\x03")
    chat.wait_for("stopped")
    chat.type("ts\r")
    chat.wait_for("ended by")


def _is_answering(screen: str) -> bool:
    """Whether something stands behind the question that is no footer, drawn in part or whole."""
    shown = screen.rpartition("> go\n")[2].strip()
    return bool(shown) and not "context".startswith(shown[:7])


def test_a_full_context_says_what_to_do(chat: PseudoTerminal) -> None:
    chat.type("/reset\r/set max_tokens 8\rshort\r")
    chat.wait_for("max_tokens is 8")
    chat.type("\x1b[200~" + "long " * 1640 + "\x1b[201~\r")
    chat.wait_for("/summary does the same")
    chat.type("\x0c/drop\r")
    chat.wait_for("It is the only one: ask a shorter question")
    chat.type("/summary\r")
    chat.wait_for("there is no question yet")


def test_a_summary_makes_room(chat: PseudoTerminal) -> None:
    chat.type("\x1b[200~" + "long " * 100 + "\x1b[201~\rshort\r")
    chat.wait_for("> short")
    chat.type("/summary 9\r")
    chat.wait_for("/summary takes a number from 1 to 2, not 9")
    chat.type("/summary\r")
    chat.wait_for("The summary stands for 1 question now")
    chat.type("/show\r")
    chat.wait_for("messages   4")


def test_tokens_are_shown_with_their_probabilities(chat: PseudoTerminal) -> None:
    chat.type("/reset\r/tokens\r")
    chat.wait_for("no probabilities are noted")
    chat.type("/set max_tokens 2\r/set log_probabilities 1\rHello\r")
    chat.wait_for("2 tokens, cut at the limit")
    chat.type("/tokens\r")
    chat.wait_until(lambda screen: screen.count(" %") == 4, "two tokens, each with its best")


def test_no_color_and_a_narrow_window(chat_checkpoint: Path, tmp_path: Path) -> None:
    """History is kept over sessions; the footer fits; a killed chat leaves a usable terminal."""
    history = tmp_path / "xdg" / "glm4q"
    history.mkdir(parents=True)
    (history / "history").write_text("\n# 2026\n+/show\n")
    terminal = start_chat(
        chat_checkpoint, tmp_path, "--max-tokens", "8", columns=40, NO_COLOR="1", LC_ALL="C"
    )
    before = termios.tcgetattr(terminal.process.child_fd)
    terminal.wait_for("context 0 of")
    terminal.type("\x12sho\r\r")  # Ctrl-R
    terminal.wait_for("messages")
    terminal.type('"""\rcaf\u00e9 \u6f22\r"""\r')
    terminal.wait_for("first after")
    assert not re.search(r"\x1b\[(\d+;)*[349][0-7](;\d+)*m", terminal.written)
    terminal.process.kill(15)
    terminal.end()
    assert termios.tcgetattr(terminal.process.child_fd)[3] == before[3]
    assert "Traceback" not in terminal.screen()
