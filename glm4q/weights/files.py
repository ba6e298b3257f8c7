"""Safetensors files whose tensors are read one by one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from calculator.checkpoint.headers import TensorHeader
from calculator.errors import CheckpointError


class Files(ExitStack):
    """Files that stay open while weights are read, for to open one is to parse all its header.

    They are mapped: pages are read as they are touched, and are let go of when the file is closed
    and none of its tensors is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, Any] = {}

    def read(self, header: TensorHeader, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a stored tensor. Raises CheckpointError."""
        try:
            if header.file not in self._open:
                opened = self.enter_context(safe_open(header.file, framework="pt"))
                self._open[header.file] = opened
            file = self._open[header.file]
            if start == 0 and (stop is None or stop == header.shape[0]):
                return file.get_tensor(header.name)
            return file.get_slice(header.name)[start:stop]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{header.file}: {header.name} cannot be read: {error}") from None


@contextmanager
def opened(files: Files | None) -> Iterator[Files]:
    """Those, which stay open; or, where there are none, such as are closed behind one weight."""
    if files is not None:
        yield files
        return
    with Files() as own:
        yield own
