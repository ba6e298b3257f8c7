"""SIGTERM and a closed terminal while the editor waits for keys."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prompt_toolkit import Application

TERMINATIONS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def termination_ends(editor: Application[str]) -> Iterator[Callable[[], None]]:
    """Let a termination end the editor first, and be handled as before when the block ends.

    Yields what the editor is to call as it begins: a signal may have come before.

    A handler that raises would not do: prompt_toolkit shows an exception that reaches one of its
    background tasks, and waits for Enter before it ends.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if (loop := editor.loop) is not None:
            loop.call_soon_threadsafe(leave)

    def leave() -> None:
        if received and editor.is_running and not editor.is_done:
            editor.exit(exception=EOFError())

    heeded = [number for number in TERMINATIONS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
