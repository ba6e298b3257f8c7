"""Hidden states of the calibration samples in files, so that memory holds one batch at a time.

Where there is room the operating system keeps the files in memory anyway; where there is none, they
are read back. What a killed run had finished is still there for the next.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor


class Activations(ExitStack):
    """Numbers of one dtype, [samples, tokens, width], in a file of nothing else.

    Leaving the context closes the file.
    """

    def __init__(self, path: Path, samples: int, tokens: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.path = path
        self.shape = samples, tokens, width
        self.dtype = dtype
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.callback(os.close, self._file)

    @property
    def sample_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    def read(self, start: int, stop: int) -> Tensor:
        """Read samples `start` to `stop`, [stop - start, tokens, width]."""
        rows = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        buffer = _bytes(rows)
        got = 0
        while got < len(buffer):
            read = os.preadv(self._file, [buffer[got:]], start * self.sample_bytes + got)
            if not read:
                raise OSError(5, "is shorter than it was written", str(self.path))
            got += read
        return rows

    def write(self, start: int, rows: Tensor) -> None:
        """Write samples, [n, tokens, width], at `start` and after it."""
        buffer = _bytes(rows.to("cpu", self.dtype).contiguous())
        put = 0
        while put < len(buffer):
            put += os.pwrite(self._file, buffer[put:], start * self.sample_bytes + put)

    def sync(self) -> None:
        """Return when the file is on the disk."""
        os.fsync(self._file)


def _bytes(rows: Tensor) -> memoryview:
    """A view of all bytes of a contiguous tensor."""
    return rows.flatten().view(torch.uint8).numpy().data.cast("B")
