"""What `glm4q chat NAME` and `glm4q pull NAME` show and ask before and while they make an entry."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calculator.errors import Glm4qError, OptionError
from glm4q.commands.process.signals import stops_stay_stops
from glm4q.planning.named_model import ModelRequest
from glm4q.terminal.consent import lines_are_typed
from quantize.progress import QuantizeProgress
from quantize.store.choose import Chosen
from quantize.store.entries import Entry
from quantize.store.making import Making
from quantize.store.proposal import proposal
from quantize.store.resolve import resolve

WIDEST = 100
"""Columns of the screen that asks; longer lines are hard to read."""


def find_checkpoint(request: ModelRequest) -> Path:
    """Return the checkpoint of a name. What is not there is made, if the user agrees."""

    def make(making: Making, chosen: Chosen | None) -> Entry:
        _agree(making, chosen, yes=request.yes)
        with _interrupts_named(making), QuantizeProgress() as progress:
            return making.run(progress)

    return resolve(request, make)


def _agree(making: Making, chosen: Chosen | None, *, yes: bool) -> None:
    """Show what will be done, and ask once. Raises OptionError where it is not to be done."""
    name = making.origin.name
    width = min(shutil.get_terminal_size().columns, WIDEST)
    goes_on = " goes on with" if making.is_begun else " makes"
    _say(f"glm4q{goes_on} {name}\n{proposal(making, chosen, width)}")
    if yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise OptionError(f"{name} is not in the store, and without a terminal only --yes makes it")
    while True:
        with lines_are_typed():  # before the question: what comes after it is an answer
            print("Make it? y or n: ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
        if answer.strip().lower() in ("y", "yes"):
            return
        if not answer or answer.strip().lower() in ("n", "no"):
            raise OptionError(f"{name} is not made: the answer was no")


@contextmanager
def _interrupts_named(making: Making) -> Iterator[None]:
    """Say what an interrupted run leaves, and how to go on; an error's own notes have it too."""
    try:
        with stops_stay_stops():
            yield
    except (KeyboardInterrupt, SystemExit):
        _say(f"glm4q: {making.origin.name} is not finished; {_kept(making) or 'nothing is kept'}")
        raise
    except (Glm4qError, OSError) as error:
        if not getattr(error, "__notes__", None) and (how := _kept(making)):
            error.add_note(how)
        raise


def _kept(making: Making) -> str | None:
    """Say what is kept of an entry that was begun; None where nothing is."""
    if not making.is_begun:
        return None
    return f"what has come is kept in {making.source.workshop}; the same command goes on"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
