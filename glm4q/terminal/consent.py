"""Asks whether a tool may run: yes, no, or always in this conversation."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from glm4q.tools.calls import ToolCall

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class TerminalConsent:
    """Answers for tools that are allowed already, and asks about the others."""

    def __init__(self, console: Console, *, allowed: Iterable[str], can_ask: bool) -> None:
        """allowed: tools that run without a question. can_ask: somebody is at a terminal."""
        self._console, self._allowed, self._can_ask = console, set(allowed), can_ask

    def __call__(self, call: ToolCall) -> bool:
        """Return whether the call may run. The call itself is shown by whoever shows the reply."""
        if call.name in self._allowed:
            return True
        if not self._can_ask:
            self._say(
                f"{call.name} does not run: without a terminal it needs --yes-tools {call.name}"
            )
            return False
        while True:
            try:
                with lines_are_typed():
                    answer = self._console.input(f"Run {call.name}? y, n or always: ", markup=False)
            except EOFError:
                return False
            answer = answer.strip().lower()
            if answer in ("a", "always"):
                self._allowed.add(call.name)
            if answer in ("y", "yes", "a", "always"):
                return True
            if answer in ("n", "no"):
                return False
            self._say("Type y, n or always.")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


@contextmanager
def lines_are_typed() -> Iterator[None]:
    """Let the terminal show and edit a line. What was typed before is no answer: it is dropped."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    lines = termios.tcgetattr(terminal)
    lines[0] |= termios.ICRNL
    lines[3] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(terminal, termios.TCSAFLUSH, lines)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal may have gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
