"""Write a file whole or not at all: a file that exists stays until the new one is complete."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int, lasting: bool = False) -> None:
    """Write the content to a file with these permissions. Raises OSError.

    lasting: wait until the disk has it, so that a power cut leaves the old file or the new one.
    """
    import tempfile  # imports slowly, and few commands write files

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:  # Ctrl-C too leaves nothing half-written
        temporary.unlink(missing_ok=True)
        raise
