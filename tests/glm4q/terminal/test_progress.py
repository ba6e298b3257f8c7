"""The line under which a long prompt is read."""

import io
import time
from collections.abc import Generator

from glm4q.terminal.screen.console import Console
from glm4q.terminal.screen.progress import PATIENCE, with_progress


def slowly() -> Generator[str]:
    time.sleep(PATIENCE + 0.2)
    yield "answer"


def test_a_long_prompt_shows_how_far_it_is_read_and_the_line_goes() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, _environ={"TERM": "xterm"})
    shown = [file.getvalue() for _ in with_progress(slowly(), console, lambda: (512, 2048))]
    assert "reading 512 of 2,048 tokens" in shown[0]
    assert shown[0].endswith(f"\r{' ' * 59}\r")


def test_a_pipe_gets_no_line() -> None:
    file = io.StringIO()
    assert list(with_progress(slowly(), Console(file=file), lambda: (1, 2))) == ["answer"]
    assert file.getvalue() == ""
