"""Text files that a user names."""

from pathlib import Path

from calculator.errors import OptionError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises OptionError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
