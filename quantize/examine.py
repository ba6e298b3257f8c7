"""Check a finished checkpoint and write its report, before it takes its name."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.memory.making import WINDOW, MemoryEstimate
from calculator.units import counted
from glm4q import __version__
from glm4q.measure.peaks import peak_bytes
from quantize.calibrate.samples import Calibration
from quantize.calibrate.texts import read_text
from quantize.output.target import Journal
from quantize.quality.checkpoint_check import check_weights
from quantize.quality.evaluate import LayerListener, evaluate
from quantize.quality.predictor import ComputeSettings, Windows, read_windows
from quantize.quality.recorded import SourceRecord
from quantize.quality.report import held_out_record, write_report
from quantize.recipe import Recipe

BUILT_IN = files("quantize") / "data" / "held-out.txt"
"""Stories, letters, news and code, written for this project; no calibration sample."""


@dataclass(frozen=True)
class HeldOut:
    """A text on which quality is measured; no calibration sample is in it."""

    name: str
    windows: Windows


def read_held_out(path: Path | None, stored: StoredModel, window: int = WINDOW) -> HeldOut:
    """Read a file's text, or the built-in one, in windows. Raises OptionError, TokenizerError."""
    text = read_text(path) if path else BUILT_IN.read_text(encoding="utf-8")
    windows = read_windows(text, stored, window, name=str(path or "the built-in text"))
    return HeldOut(path.name if path else "built in", windows)


@dataclass(frozen=True)
class Examination:
    """Checks a checkpoint that was made of `source`, and writes its report."""

    source: StoredModel
    recipe: Recipe
    calibration: Calibration | None
    held_out: HeldOut | None
    need: MemoryEstimate
    how: ComputeSettings
    listener: LayerListener
    record: SourceRecord | None = None
    """How the source predicts the text, where its weights are not there any more."""

    def __call__(self, directory: Path, journal: Journal) -> None:
        """Check the weights and write the report. Raises CheckpointError where one is wrong."""
        output = StoredModel.open(directory)
        for problem in check_weights(output):
            raise CheckpointError(problem)
        held_out = self._measured(output) if self.held_out else None
        write_report(directory, self._record(output, journal, held_out))

    def _measured(self, output: StoredModel) -> dict[str, Any]:
        assert self.held_out
        against = self.record.predictor() if self.record else self.source
        source, result = evaluate(
            [output], self.held_out.windows, self.how, against=against, listener=self.listener
        )
        return held_out_record(self.held_out.name, source, result)

    def _record(
        self, output: StoredModel, journal: Journal, held_out: dict[str, Any] | None
    ) -> dict[str, Any]:
        recipe, how = self.recipe, self.how
        return {
            "source": {"name": self.source.name, "bytes": _bytes(self.source)},
            "checkpoint": {
                "method": recipe.method,
                "weights": str(recipe.linear),
                "lm_head": str(recipe.head),
                "rules": [[*rule.match, str(rule.weight_format)] for rule in recipe.rules],
                "bytes": _bytes(output),
            },
            "calibration": self.calibration.record if self.calibration else None,
            "held_out": held_out,
            "linears": journal.reports,
            "run": {
                "seconds": round(journal.seconds, 1),
                "peak_bytes": max(journal.peak_bytes, peak_bytes()),
                "predicted_bytes": self.need.total,
                "arithmetic": f"{str(how.dtype).removeprefix('torch.')} on {how.device.type}, "
                f"{counted(torch.get_num_threads(), 'thread')}",
                "versions": {"glm4q": __version__, "torch": torch.__version__},
            },
        }


def _bytes(stored: StoredModel) -> int:
    return sum(header.nbytes for header in stored.tensors.values())
