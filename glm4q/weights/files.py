"""Files of weights, safetensors and GGUF, whose tensors are read one by one."""

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from calculator.checkpoint.gguf_file import is_gguf
from calculator.checkpoint.headers import BLOCK_BYTES, TensorHeader
from calculator.errors import CheckpointError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class OpenFile(Protocol):
    """A file that is mapped: pages are read as they are touched."""

    def rows(self, header: TensorHeader, start: int, stop: int | None) -> Tensor: ...


class Files(ExitStack):
    """Files that stay open while weights are read, because opening one parses its whole header.

    Their pages are freed when the file is closed and none of its tensors is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, OpenFile] = {}

    def read(self, header: TensorHeader, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor; blocks of GGUF as uint8, [rows, bytes]. Raises CheckpointError."""
        try:
            if header.file not in self._open:
                self._open[header.file] = self._opened(header.file)
            return self._open[header.file].rows(header, start, stop)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{header.file}: {header.name} cannot be read: {error}") from None

    def _opened(self, path: Path) -> OpenFile:
        if is_gguf(path):
            return MappedFile(path)
        return Safetensors(self.enter_context(safe_open(path, framework="pt")))


class Safetensors:
    """A safetensors file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def rows(self, header: TensorHeader, start: int, stop: int | None) -> Tensor:
        if start == 0 and (stop is None or stop == header.shape[0]):
            tensor: Tensor = self._file.get_tensor(header.name)
            return tensor
        part: Tensor = self._file.get_slice(header.name)[start:stop]
        return part


class MappedFile:
    """A file whose tensors lie where their headers say."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            # torch warns about memory that cannot be written; this copy is never written.
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)

    def rows(self, header: TensorHeader, start: int, stop: int | None) -> Tensor:
        stop = header.shape[0] if stop is None else stop
        row = header.nbytes // header.shape[0]
        place, count = header.start + start * row, (stop - start) * row
        data = torch.frombuffer(self._map, dtype=torch.uint8, offset=place, count=count)
        if header.dtype in BLOCK_BYTES:
            return data.view(stop - start, row)
        return data.view(DTYPES[header.dtype]).view(stop - start, *header.shape[1:])


@contextmanager
def opened(files: Files | None) -> Iterator[Files]:
    """Yield `files` if given, and leave it open. Otherwise open a set that is closed afterwards."""
    if files is not None:
        yield files
        return
    with Files() as own:
        yield own


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file. Raises OSError where the disk does not take it.

    The library reports a full disk as an error of its own, which has the system's number in its
    text: "Error while serializing: I/O error: No space left on device (os error 28)".
    """
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise CheckpointError(f"{file} cannot be written: {error}") from None
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from None
