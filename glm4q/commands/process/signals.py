"""What Ctrl-C, a closed terminal and a termination do to a command."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def end_at_once_on_interrupt() -> None:
    """Let Ctrl-C end the process without Python's help, until `raise_on_interrupt`.

    While torch and other extensions are imported, Python's own KeyboardInterrupt gets lost in them
    or ends in a traceback; nothing is to be cleaned up as yet.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for jobs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    sys.exit(128 + number)
