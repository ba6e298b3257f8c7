"""Files in a question: `/file PATH` and `@path` put a text file's contents into it."""

import os
import re
from pathlib import Path

from calculator.errors import OptionError
from calculator.units import counted, human_bytes

LARGEST = 16 << 20
"""Bytes; no context has room for the tokens of a larger text."""

MENTION = re.compile(r'(?<!\S)@(?:"([^"]+)"|(\S+))')


def mentioned_files(question: str) -> list[Path]:
    """Return the files that `@path` names in a question; other words with an @ are plain text."""
    names = [quoted or plain for quoted, plain in MENTION.findall(question)]
    paths = [_existing(name) for name in names]
    return list(dict.fromkeys(path for path in paths if path is not None))


def _existing(name: str) -> Path | None:
    """Find a file of this name; punctuation behind a name does not belong to it."""
    for candidate in (name, name.rstrip(".,;:!?)")):
        path = os.path.expanduser(candidate)  # pathlib's raises where there is no such user
        if os.path.isfile(path):  # False for what no file can be named, too
            return Path(path)
    if "/" in name or os.path.exists(os.path.expanduser(name)):
        raise OptionError(f"{name} is not a file; nothing was sent")
    return None


def read_text(path: Path) -> str:
    """Read a text file. Raises OptionError where there is none, or where it is not UTF-8."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise OptionError(
                f"{path} has {human_bytes(size)}, and a question takes {human_bytes(LARGEST)}"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from None
    if not text.strip():
        raise OptionError(f"{path} is empty")
    return text


def with_files(question: str, texts: dict[Path, str]) -> str:
    """Put the files' texts before the question, each under its name."""
    parts = [f"File {path}:\n\n{text.rstrip()}" for path, text in texts.items()]
    return "\n\n".join([*parts, question] if question else parts)


def counts(tokens: dict[Path, int]) -> str:
    """Say how many tokens each file has.

    >>> counts({Path("a.txt"): 1200, Path("b.txt"): 1})
    'a.txt: 1,200 tokens, b.txt: 1 token'
    """
    return ", ".join(f"{path}: {counted(count, 'token')}" for path, count in tokens.items())
