"""A termination while the editor waits for keys ends it, whatever the editor does then."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit import Application
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import DummyCompleter
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from glm4q.commands.process.signals import STOPS, unwind_on_stops
from glm4q.terminal.keyboard.input import EditorReader


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def terminate_in_a_task(editor: Application[str]) -> None:
    """Stand for a background task of the editor during which the signal comes."""
    terminate()


@pytest.fixture
def raising() -> Iterator[None]:
    """Handle terminations as commands do."""
    before = {number: signal.getsignal(number) for number in STOPS}
    unwind_on_stops()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def reader(raising: None) -> Iterator[EditorReader]:
    with create_pipe_input() as keys, create_app_session(keys, DummyOutput()):
        yield EditorReader(None, DummyCompleter(), lambda: "footer")


def test_a_background_task_of_the_editor_does_not_swallow_it(
    reader: EditorReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Application, "_poll_output_size", terminate_in_a_task)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        reader.read()
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


def test_it_may_come_before_the_editor_runs(
    reader: EditorReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., str] = Application.run

    def run_late(editor: Application[str], **options: object) -> str:
        terminate()
        return run(editor, **options)

    monkeypatch.setattr(Application, "run", run_late)
    with pytest.raises(SystemExit):
        reader.read()


def test_an_unreadable_history_is_no_obstacle(raising: None, tmp_path: Path) -> None:
    with create_pipe_input() as keys, create_app_session(keys, DummyOutput()):
        keys.send_text("hello\r")
        assert EditorReader(tmp_path, DummyCompleter(), str).read().text == "hello"
