"""Stops that signals ask for: what raised them, and what extensions make of them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.cli import main
from glm4q.commands.process.signals import STOPS, stops_stay_stops, unwind_on_stops


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of a command, as if no shell had put pytest into the background."""
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)
    unwind_on_stops()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Interrupted:
    """An object during whose Python code a signal comes, as torch asks for its numbers."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> float:
        signal.raise_signal(self._number)
        return 1.0


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_such_an_error_is_the_stop_again(
    number: signal.Signals, expected: type[BaseException]
) -> None:
    with pytest.raises(expected) as caught:
        _interrupted_work(number)
    assert caught.value.__notes__ == ["what is finished is kept"]
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 128 + number


def _interrupted_work(number: signal.Signals) -> None:
    with stops_stay_stops():
        try:
            torch.tensor(Interrupted(number))
        except ValueError as error:
            error.add_note("what is finished is kept")
            raise


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    """A signal that came before the block is none of its own."""
    with pytest.raises(ValueError, match="could not determine the shape"):
        torch.tensor(Interrupted(signal.SIGINT))
    with pytest.raises(ValueError, match="the block's own"), stops_stay_stops():
        raise ValueError("the block's own")


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "here"],
        ["bench", "here"],
        ["verify", "here"],
        ["export", "here", "--to", "gguf", "-o", "there"],
        ["calc", "here", "--verify"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_ends_by_the_stop_whatever_became_of_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        torch.tensor(Interrupted(signal.SIGTERM))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(StoredModel, "open", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 128 + signal.SIGTERM
