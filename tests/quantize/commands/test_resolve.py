"""The question before a checkpoint is made, in a real terminal."""

import io
import os
import pty
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from quantize.commands import resolve


class Screen(io.StringIO):
    """Has an answer typed as soon as the question is there."""

    def __init__(self, keyboard: int) -> None:
        super().__init__()
        self._keyboard = keyboard

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "Make it?" in text:
            os.write(self._keyboard, b"y\n")
        return super().write(text)


def test_an_answer_that_comes_at_once_is_heard_and_one_before_the_question_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyboard, terminal = pty.openpty()
    monkeypatch.setattr(resolve, "proposal", lambda *given: "what it takes")
    making: Any = SimpleNamespace(origin=SimpleNamespace(name="a-model"), is_begun=False)
    os.write(keyboard, b"n\n")
    # It ends a question that has heard nothing.
    late = threading.Timer(10, os.write, (keyboard, b"n\n"))
    late.start()
    try:
        with open(terminal) as typed:
            monkeypatch.setattr("sys.stdin", typed)
            monkeypatch.setattr("sys.stderr", Screen(keyboard))
            resolve._agree(making, None, yes=False)  # raises OptionError where the answer was no
    finally:
        late.cancel()
        late.join()
        os.close(keyboard)
