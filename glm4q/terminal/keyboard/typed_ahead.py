"""Keys that are pressed between two prompts wait for the next prompt."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"


@contextmanager
def keys_wait() -> Iterator[None]:
    """Let the terminal keep keys unseen inside the `with` block; Ctrl-C works as ever.

    The editor reads them afterwards as if they were pressed then; a paste remains one paste.
    """
    if termios is None:
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    waiting = termios.tcgetattr(terminal)
    waiting[0] &= ~termios.ICRNL
    waiting[3] &= ~(termios.ECHO | termios.ICANON)
    waiting[3] |= termios.NOFLSH  # else Ctrl-C would drop what waits
    termios.tcsetattr(terminal, termios.TCSANOW, waiting)
    try:
        yield
    finally:
        with suppress(termios.error, OSError):  # the terminal may have gone
            termios.tcsetattr(terminal, termios.TCSANOW, before)
            _write(PASTE_OFF)


def begin_pastes() -> None:
    """Ask the terminal to mark where a paste begins and ends; the editor stops that as it ends."""
    _write(PASTE_ON)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
