"""What Ctrl-C, a closed terminal and a termination do to a command."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


def _exit(number: int, frame: object) -> None:
    """Raise SystemExit. A shell that ends as well sends SIGHUP again, which must not cut short what
    this one begins: files that are written, processes that are ended.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(128 + number)
