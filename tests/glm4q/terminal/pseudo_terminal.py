"""A program in a pseudo-terminal whose screen a test can read, and that it can type into."""

import os
import signal
import time
from collections.abc import Callable, Sequence

import pexpect
import pyte


class _AnsweringScreen(pyte.HistoryScreen):
    """A screen that answers what programs ask a terminal, such as where its cursor is."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, lines, history=2000, ratio=0.5)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class PseudoTerminal:
    """Runs one command, and keeps what it writes."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 40,
        cwd: str | os.PathLike[str] | None = None,
        **environment: str,
    ) -> None:
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": "", **environment}
        self.process = pexpect.spawn(
            command[0],
            list(command[1:]),
            dimensions=(lines, columns),
            env={name: value for name, value in env.items() if value},
            cwd=cwd,
            timeout=60,
            preexec_fn=_hear_interrupts,
        )
        self.process.delaybeforesend = None
        self.written = ""
        """All that the program wrote, with its escape sequences."""
        self._screen = _AnsweringScreen(columns, lines, self.type)
        self._stream = pyte.ByteStream(self._screen)

    def type(self, keys: str) -> None:
        self.process.send(keys)

    def close_window(self) -> None:
        """Take the terminal away, as its window does that is closed."""
        terminal = self.process.ptyproc
        terminal.fileobj.close()
        terminal.closed = self.process.closed = True
        terminal.fd = self.process.child_fd = -1  # another file may get the number

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        self.process.setwinsize(lines, columns)

    def wait_for(self, text: str, *, seconds: float = 60) -> str:
        """Read until a text is on the screen. Returns the screen."""
        return self.wait_until(lambda screen: text in screen, repr(text), seconds=seconds)

    def wait_until(self, holds: Callable[[str], bool], name: str, *, seconds: float = 60) -> str:
        """Read until something holds of the screen. Returns the screen."""
        until = time.monotonic() + seconds
        while not holds(screen := self.screen()):
            assert time.monotonic() < until, f"{name} does not come:\n{screen}"
            try:
                piece = self.process.read_nonblocking(65536, timeout=0.2)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"{name} did not come before the end:\n{screen}") from None
            self.written += piece.decode(errors="replace")
            self._stream.feed(piece)
        return screen

    def screen(self) -> str:
        """Return what is on the screen, and what has left it at the top."""
        above = [
            "".join(line[column].data for column in range(self._screen.columns))
            for line in self._screen.history.top
        ]
        return "\n".join(line.rstrip() for line in (*above, *self._screen.display))

    def end(self) -> int | None:
        """Read to the end. Returns the exit status."""
        while True:
            try:
                piece = self.process.read_nonblocking(65536, timeout=20)
            except pexpect.EOF:
                break
            self.written += piece.decode(errors="replace")
            self._stream.feed(piece)
        self.process.wait()
        return self.process.exitstatus


def _hear_interrupts() -> None:
    """Let Ctrl-C reach the program: a shell that runs the tests in its background ignores SIGINT,
    and programs inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
