"""Text files that a user names."""

from pathlib import Path

from calculator.errors import OptionError


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark. Raises OptionError."""
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise OptionError(
            f"{path}, line {line}, is not UTF-8 text: byte 0x{data[error.start]:02x} cannot be read"
        ) from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
