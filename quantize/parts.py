"""Write a checkpoint part by part: what lies before the layers, each layer, what lies behind them.

All that can be known is checked before the first part. Each part that is finished outlasts a kill,
a full disk and every error, and the same command goes on with the next one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from glm4q.measure.peaks import peak_bytes
from glm4q.planning.disk import refuse_full_disk
from quantize.output.checksums import CHECKSUMS, write_checksums
from quantize.output.companions import write_companions
from quantize.output.layout import Shard, total_bytes
from quantize.output.shards import ShardWriter, write_index
from quantize.output.target import JOURNAL, Journal, Target
from quantize.output.tensors import NamedTensors
from quantize.quality.report import JSON_NAME, TEXT_NAME

NOT_SUMMED = (CHECKSUMS, JOURNAL, JSON_NAME, TEXT_NAME)
"""Files without a checksum: the report names times and memory, which differ from run to run."""
AFTER_THE_LAST = "the checks at the end"


@dataclass(frozen=True)
class PartProgress:
    """The part that a run begins now; `part` equals `parts` where only the checks are left."""

    part: int
    parts: int
    name: str
    output_error: float | None
    """The error of the linear that was calibrated last; None where there is none."""
    is_resumed: bool = False
    """An earlier run has finished the parts before this one, and this run has done nothing yet."""


Listener = Callable[[PartProgress], None]
Finish = Callable[[Path, Journal], None]


class Supply(Protocol):
    """The files of a source, some of which are brought only when a part needs them."""

    def stamps(self) -> Mapping[str, Any]:
        """All by which another source, or a changed one, is told from this."""
        ...

    def bring(self, weights: list[Weight]) -> None:
        """Return when the files that hold these weights are there."""
        ...

    def drop(self, weights: list[Weight]) -> None:
        """Delete files that no part after that of these weights needs."""
        ...


@dataclass(frozen=True)
class LocalSupply:
    """A source whose files are all there, and stay."""

    stored: StoredModel

    def stamps(self) -> Mapping[str, Any]:
        """Sizes and times of all files."""
        return file_stamps(self.stored)

    def bring(self, weights: list[Weight]) -> None:
        """All is there."""

    def drop(self, weights: list[Weight]) -> None:
        """The source is the user's own."""


@dataclass(frozen=True)
class OutputPlan:
    """What is written; known before a weight is read."""

    source: StoredModel
    formats: Mapping[Weight, WeightFormat]
    shards: list[Shard]
    config: ModelConfig
    quantization: Mapping[str, Any]
    """The quantization_config of config.json."""
    depends_on: Mapping[str, Any]
    """All that the bytes of the output depend on; a run goes on only where it is the same."""
    scratch_bytes: int = 0
    """Bytes beside the output that the run writes to the same disk, and deletes."""
    supply: Supply | None = None
    """Brings the files of the source; None where all are there."""
    observe: Callable[[list[Weight]], None] = lambda weights: None
    """Is called with the weights of each part while their files are there."""

    @property
    def parts(self) -> list[list[Weight]]:
        """The weights of each part: those of a layer, or those that follow each other outside."""
        return parts_of(self.formats)


def parts_of(formats: Iterable[Weight]) -> list[list[Weight]]:
    """The weights of each part, in the order in which they are written."""
    return [list(weights) for _, weights in groupby(formats, lambda each: each.layer)]


class PartSource(Protocol):
    """Makes the tensors of the output."""

    def tensors(self, weights: list[Weight]) -> NamedTensors:
        """The tensors of one part, in the order of the shards."""
        ...

    def drop(self, weights: list[Weight]) -> None:
        """Delete what later parts do not need: this part is on the disk."""
        ...

    def complete(self) -> None:
        """Better what is on the disk: all parts are, and the source's last part is there."""
        ...

    def clean(self) -> None:
        """Delete what is left: all parts are on the disk."""
        ...


def write_checkpoint(
    plan: OutputPlan,
    output: Path,
    make_source: Callable[[Target], PartSource],
    *,
    overwrite: bool,
    listener: Listener = lambda progress: None,
    finish: Finish = lambda directory, journal: None,
) -> None:
    """Write the planned checkpoint into a directory that takes the name `output` when it is whole.

    finish: called with the whole directory before it takes its name. Raises OptionError,
    CheckpointError or TokenizerError; the error's notes say how to go on where a part is finished.
    """
    names = [_name(weights) for weights in plan.parts]
    target = Target(
        output,
        overwrite=overwrite,
        source=plan.source.directory,
        depends_on=plan.depends_on,
        part_names=[*names, AFTER_THE_LAST],
    )
    supply = plan.supply or LocalSupply(plan.source)
    with target.growing():
        needed = total_bytes(plan.shards) + plan.scratch_bytes
        refuse_full_disk(target.directory, output, needed - target.written_bytes())
        # Written first, because a tokenizer that cannot be converted would else fail after hours.
        write_companions(plan.source, target.directory, plan.config, plan.quantization)
        source = make_source(target)
        done = target.journal.tensors
        with ShardWriter.open(target.directory, plan.shards, finished=done) as writer:
            _write_parts(plan, source, supply, target, writer, listener)
        # Healing and the checks compare the output with the last weights of the source.
        supply.bring(plan.parts[-1])
        write_index(target.directory, plan.shards)
        _complete(source, target)
        source.clean()
        finish(target.directory, target.journal)
        known = {} if target.journal.healed else writer.sums
        write_checksums(target.directory, leave_out=NOT_SUMMED, known=known)


def _complete(source: PartSource, target: Target) -> None:
    begun, journal = time.monotonic(), target.journal
    source.complete()
    journal.seconds += time.monotonic() - begun
    journal.peak_bytes = max(journal.peak_bytes, peak_bytes())
    target.commit()


def _write_parts(
    plan: OutputPlan,
    source: PartSource,
    supply: Supply,
    target: Target,
    writer: ShardWriter,
    listener: Listener,
) -> None:
    parts, journal, first = plan.parts, target.journal, target.journal.parts
    stamps = supply.stamps()
    for number, weights in enumerate(parts[first:], start=first):
        begun = time.monotonic()
        listener(_progress(target, number, is_resumed=number == first > 0))
        supply.bring(weights)
        plan.observe(weights)
        for name, rows in source.tensors(weights):
            writer.write(name, rows)
        if supply.stamps() != stamps:
            raise CheckpointError(f"{plan.source.directory} changed while it was read")
        journal.tensors, journal.parts = writer.sync(), number + 1
        journal.seconds += time.monotonic() - begun
        journal.peak_bytes = max(journal.peak_bytes, peak_bytes())
        target.commit()
        source.drop(weights)
        if weights is not parts[-1]:
            supply.drop(weights)
    if first == len(parts):
        listener(_progress(target, first, is_resumed=True))


def _progress(target: Target, part: int, *, is_resumed: bool) -> PartProgress:
    reports = target.journal.reports
    error = reports[-1]["output_error"] if reports else None
    name, parts = target.part_names[part], len(target.part_names) - 1
    return PartProgress(part, parts, name, error, is_resumed)


def file_stamps(stored: StoredModel) -> dict[str, list[int]]:
    """[bytes, time of change in ns] of each file of weights, and of config.json."""
    files = {header.file for header in stored.tensors.values()}
    files.add(stored.directory / "config.json")
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}


def _name(weights: list[Weight]) -> str:
    layer = weights[0].layer
    return weights[0].module if layer is None else f"layer {layer}"
