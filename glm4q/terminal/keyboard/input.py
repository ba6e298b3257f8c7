"""Questions that a user types: an editor in a capable terminal, plain lines elsewhere."""

import readline  # noqa: F401  # gives input() editing
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from glm4q.terminal.keyboard.termination import termination_ends
from glm4q.terminal.keyboard.typed_ahead import begin_pastes

PROMPT, MORE = "> ", ". "
BLOCK = '"""'


@dataclass(frozen=True)
class Entry:
    """What was typed until it was sent."""

    text: str
    is_block: bool = False
    """Whether it stood between three quotation marks: then it is never a command."""

    @classmethod
    def parse(cls, typed: str) -> "Entry":
        """Take the marks of a block away."""
        text = typed.strip()
        if not text.startswith(BLOCK):
            return cls(text)
        return cls(text.removeprefix(BLOCK).removesuffix(BLOCK).strip(), True)


def is_open(typed: str) -> bool:
    """Return whether a block has begun and has not ended."""
    return typed.lstrip().startswith(BLOCK) and typed.count(BLOCK) % 2 == 1


class Reader(Protocol):
    """Reads one entry after another. Raises EOFError at the end, KeyboardInterrupt on Ctrl-C.

    draft: a text to begin with, where there is an editor.
    """

    def read(self, draft: str = "") -> Entry: ...


class LineReader:
    """Reads whole lines: for a pipe, a dumb terminal, and wherever no editor can be shown."""

    def read(self, draft: str = "") -> Entry:
        if draft:
            print(draft)
        typed = input(PROMPT)
        while is_open(typed):
            typed += "\n" + input(MORE)
        return Entry.parse(typed)


class EditorReader:
    """Reads with an editor: several lines, history, completion, and a paste as one message."""

    def __init__(self, history: Path | None, completer: Completer, footer: Callable[[], str]):
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=MORE,
            history=open_history(history),
            completer=completer,
            complete_while_typing=False,
            key_bindings=_keys(),
            bottom_toolbar=footer,
        )
        # A terminal that does not say where its cursor is needs no warning: it gets no footer.
        self._session.app.renderer.cpr_not_supported_callback = None

    def read(self, draft: str = "") -> Entry:
        try:
            with termination_ends(self._session.app) as begin:
                return Entry.parse(self._session.prompt(default=draft, pre_run=begin))
        finally:
            begin_pastes()  # a paste into a streaming answer is one message too


def can_edit(terminal: str) -> bool:
    """Return whether an editor can be shown. terminal: its name, as TERM gives it."""
    return sys.stdin.isatty() and sys.stdout.isatty() and terminal not in ("", "dumb", "unknown")


class KeptHistory(FileHistory):
    """A history file; a question that it cannot take, as on a full disk, is asked all the same."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def open_history(path: Path | None) -> History:
    """Open the history of all sessions, readable by its owner only; one in memory without it."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.read_bytes()
    except OSError:
        return InMemoryHistory()
    return KeptHistory(path)


def _keys() -> KeyBindings:
    """Enter sends, where no block is open; Alt-Enter begins a new line."""
    keys = KeyBindings()

    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
