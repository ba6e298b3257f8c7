"""One `glm4q quantize`: what to make of what, within which memory; planned, run, summed up."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from calculator.checkpoint.stored import StoredModel
from calculator.units import human_bytes
from quantize.budget import CalibrationPass, MemoryNeed, calibration_disk_bytes, largest_batch
from quantize.calibrate.samples import Calibration
from quantize.examine import Examination, HeldOut
from quantize.pipeline import BATCH, CalibrationSettings, quantize_checkpoint
from quantize.progress import QuantizeProgress
from quantize.quality.predictor import ComputeSettings
from quantize.quality.report import read_report
from quantize.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """All that a run needs to know."""

    stored: StoredModel
    output: Path
    recipe: Recipe
    how: ComputeSettings
    calibration: Calibration | None = None
    held_out: HeldOut | None = None
    offload: Path | None = None
    max_memory: int | None = None

    @cached_property
    def _batch_and_need(self) -> tuple[int, MemoryNeed]:
        tokens = self.calibration.token_ids.shape[1] if self.calibration else 0
        return largest_batch(
            self.recipe.formats(self.stored),
            self.stored.config,
            CalibrationPass(self.recipe.method, BATCH, tokens, self.how.dtype),
            held_out=sum(map(len, self.held_out.windows.token_ids)) if self.held_out else 0,
            limit=self.max_memory,
        )

    def plan(self) -> str:
        """What it will take. Raises OptionError where that is more than it may."""
        batch, need = self._batch_and_need
        told = f"planned: {human_bytes(need.total)} of memory at most"
        if not self.calibration:
            return told
        samples, tokens = self.calibration.token_ids.shape
        disk = calibration_disk_bytes(
            self.stored.config, samples=samples, tokens=tokens, dtype=self.how.dtype
        )
        return (
            f"{told}, {human_bytes(disk)} of disk for hidden states; {self.recipe.method} on "
            f"{samples} samples of {tokens} tokens, {batch} at once"
        )

    def run(self, progress: QuantizeProgress, *, overwrite: bool) -> None:
        """Make it. Raises OptionError or CheckpointError."""
        batch, need = self._batch_and_need
        work = None
        if self.calibration:
            how = self.how
            work = CalibrationSettings(self.calibration, how.device, how.dtype, batch, self.offload)
        quantize_checkpoint(
            self.stored,
            self.output,
            self.recipe,
            work=work,
            overwrite=overwrite,
            listener=progress.begin,
            finish=Examination(
                self.stored,
                self.recipe,
                self.calibration,
                self.held_out,
                need,
                self.how,
                progress.measure,
            ),
        )

    def summary(self) -> str:
        """What it has become."""
        report = read_report(self.output)
        before, after = report["source"]["bytes"], report["checkpoint"]["bytes"]
        told = f"{self.output}: {human_bytes(after)} of weights, from {human_bytes(before)}"
        if found := report["held_out"]:
            told += (
                f"; perplexity {found['perplexity']:.3f}, {found['perplexity_change']:+.2%} "
                f"(QUALITY.md in it says more)"
            )
        return told
