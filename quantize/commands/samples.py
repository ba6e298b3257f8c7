"""The calibration samples that `glm4q quantize` is asked for: read, or written by the source."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from calculator.checkpoint.stored import StoredModel
from glm4q import __version__
from glm4q.planning.devices import choose_device
from quantize.calibrate.own_samples import SELF, OwnSamples
from quantize.calibrate.samples import Calibration, read_calibration
from quantize.parts import file_stamps
from quantize.progress import QuantizeProgress


@dataclass(frozen=True)
class AskedSamples:
    """What the command line says about samples."""

    stored: StoredModel
    output: Path
    file: Path | None
    """A file or a directory; `self` lets the source write them, None takes the built-in set."""
    samples: int
    length: int
    seed: int
    device: str
    dtype: str
    max_memory: int | None

    @cached_property
    def calibration(self) -> Calibration:
        """The samples, read or written by the source, which takes long. Raises Glm4qError."""
        if self._own is not None:
            with QuantizeProgress() as progress:
                return self._own.read(self.samples, self.length, progress.write)
        return read_calibration(
            self.file, self.stored, samples=self.samples, length=self.length, seed=self.seed
        )

    @property
    def outline(self) -> Calibration:
        """Samples of that size: without content where the source is to write them.

        By these all else is checked before it writes.
        """
        if self._own is None:
            return self.calibration
        empty = torch.zeros(self.samples, self.length, dtype=torch.int64)
        return Calibration(empty, SELF, self.seed)

    def clean(self) -> None:
        """Delete what only a run that is cut off needs."""
        if self._own is not None:
            self._own.file.unlink(missing_ok=True)

    @cached_property
    def _own(self) -> OwnSamples | None:
        """The samples lie beside the output until it is made: a run that goes on needs the same."""
        if self.file != Path(SELF):
            return None
        facts = {
            "source": file_stamps(self.stored),
            "seed": self.seed,
            "arithmetic": f"{self.dtype} on {choose_device(self.device).type}",
            "version": __version__,
        }
        file = self.output.parent / f".{self.output.name}.own-samples"
        return OwnSamples(
            self.stored, file, facts, self.seed, self.device, self.dtype, self.max_memory
        )
