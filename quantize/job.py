"""One `glm4q quantize`: which checkpoint becomes which, within which memory; plan, run, summary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import MemoryFullError, OptionError, is_out_of_memory
from calculator.host.memory import available_bytes
from calculator.memory.healing import healing_memory, healing_seconds
from calculator.memory.making import CalibrationPass, MemoryEstimate, estimate_memory, largest_batch
from calculator.units import counted, human_bytes
from quantize.calibrate.samples import Calibration
from quantize.output.target import Journal, read_journal
from quantize.pipeline import (
    BATCH,
    ByShards,
    CalibrationSettings,
    quantize_checkpoint,
    refuse_small_disk,
)
from quantize.progress import QuantizeProgress, duration
from quantize.quality.examine import Examination, HeldOut
from quantize.quality.predictor import ComputeSettings
from quantize.quality.recorded import SourceRecord
from quantize.quality.report import read_report
from quantize.recipe import Recipe

BESIDE = (
    "; this model's head is its embedding, which stays: the head of fewer bits is stored beside "
    "it, and makes the checkpoint larger"
)
UNHEALED = "--heal trains by calibration samples, and method {method} uses none"


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
    can_limit: bool = True
    """Whether the command has options for the limit and the device, which an error names."""
    by_shards: ByShards | None = None
    """Brings the source's files where they are not all there."""
    record: SourceRecord | None = None
    """How the source predicts the held-out text, where `by_shards` drops its files."""
    heals: bool = False
    """Whether scales, norms and biases are trained at the end."""
    note: Callable[[Path], None] = lambda directory: None
    """Is called with the whole directory before its checksums are written."""

    @cached_property
    def _batch_and_need(self) -> tuple[int, MemoryEstimate]:
        """Samples in one forward pass, and the memory that they need. Raises OptionError."""
        formats, config = self.recipe.formats(self.stored), self.stored.config
        tokens = self.calibration.token_ids.shape[1] if self.calibration else 0
        calibration = CalibrationPass(self.recipe.method, BATCH, tokens, self.how.dtype.itemsize)
        held_out = sum(map(len, self.held_out.windows.token_ids)) if self.held_out else 0
        if begun := self._begun_batch():
            # The output's bytes depend on the batch, so a run that goes on cannot choose another.
            calibration = replace(calibration, batch=begun)
            need = estimate_memory(formats, config, calibration, held_out=held_out)
            return begun, self._with_healing(need)
        limit, name = self._memory_limit()
        batch, need = largest_batch(
            formats, config, calibration, held_out=held_out, limit=limit, limit_name=name
        )
        need = self._with_healing(need)
        if need.total > limit:
            raise OptionError(f"{name}, and --heal needs {human_bytes(need.total)}")
        return batch, need

    def _with_healing(self, need: MemoryEstimate) -> MemoryEstimate:
        """The memory of a run that needs so much before it heals. Raises OptionError."""
        if not self.heals:
            return need
        if self.calibration is None:
            raise OptionError(UNHEALED.format(method=self.recipe.method))
        healing = healing_memory(
            self.recipe.formats(self.stored),
            self.stored.config,
            tokens=self.calibration.token_ids.shape[1],
            number_bytes=4 if self.how.dtype == torch.float16 else self.how.dtype.itemsize,
        )
        return max(need, healing, key=lambda each: each.total)

    def _begun_batch(self) -> int | None:
        journal = read_journal(self.output)
        batch = journal.asked.get("batch") if journal and journal.parts else None
        return batch if isinstance(batch, int) and 0 < batch <= BATCH else None

    def lack_of_memory(self) -> str | None:
        """Why the memory that is free does not do for this run; None where it does."""
        try:
            _ = self._batch_and_need
        except OptionError as error:
            return str(error)
        return None

    def _memory_limit(self) -> tuple[int, str]:
        if self.max_memory is not None:
            return self.max_memory, f"--max-memory is {human_bytes(self.max_memory)}"
        if self.how.device.type == "cpu":
            free, of, other = available_bytes(), "memory", ""
        else:
            free, _ = torch.cuda.mem_get_info(self.how.device)
            of, other = "the GPU's memory", "--device cpu computes on the host, "
        advice = f" ({other}--max-memory names another limit)" if self.can_limit else ""
        return free, f"{human_bytes(free)} of {of} are free{advice}"

    @property
    def memory_bytes(self) -> int:
        """The most memory that the run takes. Raises OptionError."""
        return self._batch_and_need[1].total

    @property
    def disk_bytes(self) -> int:
        """The bytes of hidden states beside the output. Raises OptionError."""
        settings = self._calibration_settings(self._batch_and_need[0])
        return settings.disk_bytes(self.stored) if settings else 0

    def with_shards(self, by_shards: ByShards) -> "Job":
        """Return this job with a source whose files are brought when they are needed."""
        return replace(self, by_shards=by_shards)

    def plan(self) -> str:
        """One line: the memory and the disk that the run takes. Raises OptionError."""
        batch, need = self._batch_and_need
        line = f"planned: {human_bytes(need.total)} of memory at most"
        tied = self.stored.config.tie_word_embeddings
        beside = BESIDE if self.recipe.head.is_quantized and tied else ""
        settings = self._calibration_settings(batch)
        if settings is None:
            return line + beside
        samples, tokens = settings.calibration.token_ids.shape
        disk = settings.disk_bytes(self.stored)
        return (
            f"{line}, {human_bytes(disk)} of disk for hidden states; {self.recipe.method} on "
            f"{counted(samples, 'sample')} of {counted(tokens, 'token')}, {batch} at once"
            f"{self._healing_words(samples, tokens)}{beside}"
        )

    def _healing_words(self, samples: int, tokens: int) -> str:
        if not self.heals:
            return ""
        if self.how.device.type != "cpu":
            return ", then it is healed"
        least, most = healing_seconds(
            self.recipe.formats(self.stored), self.stored.config, samples=samples, tokens=tokens
        )
        return f", then it is healed: {duration(least)} to {duration(most)} on two CPU cores"

    def refuse_small_disk(self) -> None:
        """Raise CheckpointError where a disk has too little room for the run."""
        settings = self._calibration_settings(self._batch_and_need[0])
        refuse_small_disk(self.stored, self.output, self.recipe, settings)

    def run(self, progress: QuantizeProgress, *, overwrite: bool) -> None:
        """Write the checkpoint. Raises OptionError, CheckpointError or MemoryFullError."""
        batch, need = self._batch_and_need
        examination = Examination(
            self.stored,
            self.recipe,
            self.calibration,
            self.held_out,
            need,
            self.how,
            progress.measure,
            self.record,
        )

        def finish(directory: Path, journal: Journal) -> None:
            examination(directory, journal)
            self.note(directory)

        with _full_memory_named():
            quantize_checkpoint(
                self.stored,
                self.output,
                self.recipe,
                calibration=self._calibration_settings(batch),
                overwrite=overwrite,
                listener=progress.begin,
                heal_listener=progress.heal,
                finish=finish,
                by_shards=self.by_shards,
            )

    def summary(self) -> str:
        """One line: the checkpoint's size and quality."""
        report = read_report(self.output)
        before, after = report["source"]["bytes"], report["checkpoint"]["bytes"]
        line = f"{self.output}: {human_bytes(after)} of weights, from {human_bytes(before)}"
        if quality := report["held_out"]:
            line += (
                f"; perplexity {quality['perplexity']:.3f}, {quality['perplexity_change']:+.2%} "
                f"(QUALITY.md in it has more)"
            )
        return line

    def _calibration_settings(self, batch: int) -> CalibrationSettings | None:
        if self.calibration is None:
            return None
        how = self.how
        return CalibrationSettings(
            self.calibration, how.device, how.dtype, batch, self.offload, self.heals
        )


@contextmanager
def _full_memory_named() -> Iterator[None]:
    """Raise MemoryFullError where the host or the GPU has no memory left."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        named = MemoryFullError(
            "no memory is left: another program took it, or --max-memory is above what is free"
        )
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        raise named from None
