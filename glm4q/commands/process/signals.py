"""What Ctrl-C, a closed terminal and a termination do to a command."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_received: list[int] = []
"""The signal that was received last, for `stops_stay_stops`."""


def end_at_once_on_interrupt() -> None:
    """Let Ctrl-C end the process without Python's help, until `raise_on_interrupt`.

    While torch and other extensions are imported, and while Python ends, its own KeyboardInterrupt
    gets lost or ends in a traceback; there is nothing to clean up.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for jobs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


@contextmanager
def stops_stay_stops() -> Iterator[None]:
    """Stop, where a signal that was to stop the `with` block became an error of another kind.

    What a signal raises in Python that was called from C, some extensions replace: torch by a
    ValueError where it asks an object for its numbers. The error's notes go on with the stop. The
    block must not handle KeyboardInterrupt and go on.
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
def interrupts_as_before() -> Iterator[None]:
    """Let Ctrl-C do after the `with` block what it did before."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ending_at_once_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process without Python's help inside the `with` block."""
    end_at_once_on_interrupt()
    try:
        yield
    finally:
        raise_on_interrupt()


def unwind_on_termination() -> None:
    """Let SIGTERM and a closed terminal raise SystemExit, so that half-written files go."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _exit)


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
