"""Write and read SHA256SUMS, which `sha256sum -c` checks as well."""

import hashlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from calculator.errors import CheckpointError

CHECKSUMS = "SHA256SUMS"


def write_checksums(
    directory: Path, leave_out: Container[str], known: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Hash every file of the directory except those in `leave_out`; `known` ones are not read."""
    files = sorted(file for file in directory.iterdir() if file.name not in leave_out)
    lines = [f"{known.get(file.name) or sha256(file)}  {file.name}\n" for file in files]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def read_checksums(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and the sha256 that it had when it was written. Raises CheckpointError."""
    path = directory / CHECKSUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise CheckpointError(f"{directory} has no {CHECKSUMS} that can be read") from None
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).name != name:
            raise CheckpointError(f"{path} has a line that is not a checksum: {line!r:.80}")
        yield directory / name, digest


def sha256(file: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
