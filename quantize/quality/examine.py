"""Check a finished checkpoint and write its report, before it takes its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
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
from quantize.calibrate.documents import read_lines, read_text
from quantize.calibrate.samples import Calibration, DocumentEncoder
from quantize.output.target import Journal
from quantize.quality.checkpoint_check import check_weights
from quantize.quality.evaluate import LayerListener, evaluate
from quantize.quality.predictor import (
    ComputeSettings,
    Windows,
    cut_windows,
    read_windows,
)
from quantize.quality.recorded import SourceRecord
from quantize.quality.report import held_out_record, write_report
from quantize.recipe import Recipe

DATA = files("quantize") / "data"
BUILT_IN = DATA / "held-out.txt"
"""Stories, letters, news and code, written for this project; no calibration sample."""


DOMAINS = {"chat": "chat", "code": "code", "Chinese": "chinese", "tools": "tools"}
"""What people ask a model for, and the name of the file of each kind."""


@dataclass(frozen=True)
class HeldOut:
    """Texts on which quality is measured; no calibration sample is in them."""

    name: str
    """The first text's; it gives the perplexity that is reported in one line."""
    texts: Mapping[str, Windows]

    @cached_property
    def windows(self) -> Windows:
        """The windows of all texts, one text after the other."""
        return Windows.joined(self.texts.values())


def read_held_out(path: Path | None, stored: StoredModel, window: int = WINDOW) -> HeldOut:
    """Read a file's text, or the built-in one, in windows. Raises OptionError, TokenizerError."""
    text = read_text(path) if path else BUILT_IN.read_text(encoding="utf-8")
    windows = read_windows(text, stored, window, name=str(path or "the built-in text"))
    name = path.name if path else "built in"
    return HeldOut(name, {"prose" if path is None else name: windows})


def read_domains(stored: StoredModel) -> HeldOut:
    """Read the built-in text, and one of each domain. Raises OptionError, TokenizerError."""
    encoder, prose = DocumentEncoder(stored), read_held_out(None, stored)
    texts = dict(prose.texts)
    for domain, name in DOMAINS.items():
        lines = (DATA / f"held-out-{name}.jsonl").read_text(encoding="utf-8")
        token_ids = [
            token
            for document in read_lines(lines, f"the built-in text of {domain}")
            for token in encoder.encode(document)
        ]
        texts[domain] = cut_windows(token_ids, encoder.tokenizer, WINDOW)
    return HeldOut(prose.name, texts)


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
        texts = self.held_out.texts
        source, result = evaluate(
            [output],
            self.held_out.windows,
            self.how,
            against=against,
            texts=[len(text) for text in texts.values()],
            listener=self.listener,
        )
        return held_out_record(self.held_out.name, tuple(texts), source, result)

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
            "healed": journal.healed,
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
