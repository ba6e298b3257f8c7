"""The standard streams: encodings, questions that come through a pipe, repeated warnings."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calculator.errors import OptionError


def open_closed_streams() -> None:
    """Open the null device for each standard stream that the caller has closed.

    Otherwise the next file that is opened takes its number, and what a library prints goes into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def tolerate_encodings() -> None:
    """Replace what an output's encoding lacks, such as an emoji in GBK, by a question mark.

    What cannot be decoded on the input is kept as lone surrogates: `read_piped` refuses them.
    """
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def forget_width_of_nothing() -> None:
    """Take COLUMNS=0 for a width that is not known: rich would print nothing at all."""
    if os.environ.get("COLUMNS", "").strip() == "0":
        del os.environ["COLUMNS"]


def read_question(prompt: str | None) -> str | None:
    """Join the question of an option and the text on standard input, in this order.

    None where there is neither, and somebody at a terminal can be asked. Raises OptionError.
    """
    piped = read_piped(wait=prompt is None)
    if prompt is None and piped is None:
        return None
    parts = [part for part in (prompt, piped) if part and part.strip()]
    if not parts:
        where = "standard input" if prompt is None else "--prompt"
        raise OptionError(f"the question is empty: {where} has no text")
    return "\n\n".join(parts)


def read_piped(*, wait: bool) -> str | None:
    """Read standard input if it is no terminal; None where it is one. Raises OptionError.

    wait: read whatever it is. Otherwise a file or a pipe is read, and nothing that may stay silent
    for ever, such as a socket or a device.
    """
    if sys.stdin.isatty() or not (wait or _is_file_or_pipe()):
        return None
    text = sys.stdin.read()
    for place, letter in enumerate(text):
        if "\udc80" <= letter <= "\udcff":
            encoding, byte = sys.stdin.encoding, ord(letter) - 0xDC00
            raise OptionError(
                f"standard input is not {encoding} text: byte 0x{byte:02x} at character {place + 1}"
            )
    return text


def _is_file_or_pipe() -> bool:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # a stream without a file, as tests and notebooks have
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Show a warning once within the `with` block: a command may open a checkpoint twice.

    Importing logging takes 2 ms of a cold start. A command whose module has not imported it opens
    no checkpoint twice.
    """
    shown: set[str] = set()

    def is_new(record: Any) -> bool:
        text = record.getMessage()
        known = text in shown
        shown.add(text)
        return not known

    logging = sys.modules.get("logging")
    # It writes the warnings of a program that sets up no logging.
    handler = logging.lastResort if logging else None
    if handler is None:
        yield
        return
    handler.addFilter(is_new)
    try:
        yield
    finally:
        handler.removeFilter(is_new)
