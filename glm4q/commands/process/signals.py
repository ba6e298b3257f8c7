"""What Ctrl-C, a closed terminal and a termination do to a command."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a command."""
_received: list[int] = []
"""The signal that was received last, for `stops_stay_stops`."""


def end_at_once_on_stops() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end the process without Python's help.

    While torch and other extensions are imported, and while Python ends, what a signal raises gets
    lost or ends in a traceback; there is nothing to clean up. A command begins by
    `unwind_on_stops`.
    """
    for number in STOPS:
        _handle(number, signal.SIG_DFL)


def unwind_on_stops() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, and SIGTERM and a closed terminal SystemExit, so that
    half-written files go.
    """
    _handle(signal.SIGINT, _interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        _handle(number, _exit)


@contextmanager
def stops_stay_stops() -> Iterator[None]:
    """Stop, where a signal that was to stop the `with` block became an error of another kind.

    What a signal raises in Python that was called from C, some extensions replace: torch by a
    ValueError where it asks an object for its numbers, numpy by a RuntimeError where its import is
    cut off. The error's notes go on with the stop. The block, or the function that this decorates,
    must not handle KeyboardInterrupt and go on.
    """
    _received.clear()
    try:
        yield
    except Exception as error:
        if not _received:
            raise
        stop = _stop(_received[0])
        for note in getattr(error, "__notes__", ()):
            stop.add_note(note)
        raise stop from error


@contextmanager
def stops_as_before() -> Iterator[None]:
    """Let the signals that stop a command do after the `with` block what they did before."""
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_at_once_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process without Python's help inside the `with` block."""
    _handle(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        _handle(signal.SIGINT, _interrupt)


def _handle(
    number: signal.Signals, handler: Callable[[int, object], None] | signal.Handlers
) -> None:
    """Set a signal's handler, unless it is ignored, as shells let jobs in the background ignore
    SIGINT and `nohup` lets a command ignore SIGHUP.
    """
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, handler)


def _stop(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _interrupt(number: int, frame: object) -> None:
    _received[:] = [number]
    raise _stop(number)


def _exit(number: int, frame: object) -> None:
    """Raise SystemExit. A shell that ends as well sends SIGHUP again, which must not cut short what
    this one begins: files that are written, processes that are ended.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _received[:] = [number]
    raise _stop(number)
