"""Files of weights, safetensors and GGUF, whose tensors are read one by one."""

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from calculator.checkpoint.headers import BLOCK_BYTES, TensorHeader
from calculator.errors import CheckpointError

DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
    **{"BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}


class Files(ExitStack):
    """Files that stay mapped while weights are read: pages are read as they are touched.

    A file's pages are freed when these are closed and none of its tensors is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self._maps: dict[Path, mmap.mmap] = {}
        self.callback(self._maps.clear)

    def read(self, header: TensorHeader, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor; blocks of GGUF as uint8, [rows, bytes]. Raises CheckpointError.

        `calculator.checkpoint` has checked the header. No function here calls Python from C: of an
        interrupt that comes in such Python, C functions may make an error of their own.
        """
        try:
            if header.file not in self._maps:
                self._maps[header.file] = _mapped(header.file)
            return _rows(self._maps[header.file], header, start, stop)
        except (ValueError, OSError) as error:  # the file is shorter than it was, or gone
            raise CheckpointError(f"{header.file}: {header.name} cannot be read: {error}") from None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        # torch warns about memory that cannot be written; this copy is never written.
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def _rows(data: mmap.mmap, header: TensorHeader, start: int, stop: int | None) -> Tensor:
    rows, *rest = header.shape or (1,)
    stop = rows if stop is None else stop
    row = header.nbytes // rows
    place, count = header.start + start * row, (stop - start) * row
    numbers = torch.frombuffer(data, dtype=torch.uint8, offset=place, count=count)
    if header.dtype in BLOCK_BYTES:
        return numbers.view(stop - start, row)
    shape = (stop - start, *rest) if header.shape else ()
    return numbers.view(DTYPES[header.dtype]).view(shape)


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
