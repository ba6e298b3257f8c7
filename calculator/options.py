"""Reads sizes, counts and choices from the command line, for all commands."""

import re

from calculator.errors import OptionError

# Patterns are compiled where they are first used: most commands use none of them.
REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
"""A Hugging Face id is owner/name."""

_SIZE = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([mg]?)(?:i?b)?"
_LARGEST_BARE = 512
"""A larger number without a unit is rather MiB than GiB, so that it is asked back."""
_COUNT = r"([0-9]{1,12})([km]?)"


def parse_tokens(text: str) -> int:
    """Read a number of tokens: 4096, 128k (x 1024) or 1m (x 1024 x 1024). Raises OptionError.

    >>> parse_tokens("128k")
    131072
    """
    match = re.fullmatch(_COUNT, text.strip(), re.IGNORECASE)
    if not match:
        raise OptionError(f"a number of tokens looks like 8192, 128k or 1m, not {text!r}")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()]


def parse_size(text: str, name: str) -> int:
    """Read a size in GiB, or in MiB where an M follows. Raises OptionError.

    >>> parse_size("11.5", "vram"), parse_size("600M", "reserve")
    (12348030976, 629145600)
    """
    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if not match:
        raise OptionError(f"{name} is a size such as 11.5 (GiB) or 600M (MiB), not {text[:40]!r}")
    if not match[2] and float(match[1]) > _LARGEST_BARE:
        raise OptionError(
            f"{name} {match[1]} has no unit: write {match[1]}M for MiB, or {match[1]}G for GiB"
        )
    return round(float(match[1]) * (1 << (20 if match[2].lower() == "m" else 30)))


def parse_count(text: str | None, name: str) -> int | None:
    """Read a number; None where no text or "auto" is given. Raises OptionError.

    >>> parse_count("30", "gpu layers"), parse_count("auto", "gpu layers")
    (30, None)
    """
    if text is None or text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise OptionError(f"{name} is a number or auto, not {text[:40]!r}")
    return int(text)


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """Return the value if it is one of the known ones. Raises OptionError."""
    if value not in known:
        raise OptionError(f"{name} must be one of {', '.join(known)}, not {value}")
    return value


def printable(text: str) -> str:
    """Replace what no terminal prints: a name on disk may hold any bytes."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
