"""Quantize a checkpoint part by part, into a directory that appears only when whole."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, OptionError
from calculator.model.architecture import EMBEDDING, Weight
from calculator.model.formats import WeightFormat
from glm4q import __version__
from glm4q.measure.peaks import peak_bytes
from quantize.budget import calibration_disk_bytes
from quantize.calibrate.samples import Calibration
from quantize.calibrate.walk import CalibrationWalk
from quantize.output.checksums import CHECKSUMS, write_checksums
from quantize.output.companions import gptq_settings, write_companions
from quantize.output.layout import SHARD_BYTES, lay_out, total_bytes
from quantize.output.shards import ShardWriter, write_index
from quantize.output.target import JOURNAL, Journal, Target, refuse_full_disk
from quantize.output.tensors import NamedTensors, coded, copied, rounded
from quantize.quality.report import JSON_NAME, TEXT_NAME
from quantize.recipe import Recipe

BATCH = 4
NOT_SUMMED = (CHECKSUMS, JOURNAL, JSON_NAME, TEXT_NAME)
"""The report tells of time and memory, which differ from run to run; all else is the same."""


@dataclass(frozen=True)
class CalibrationSettings:
    """How to calibrate, and where."""

    calibration: Calibration
    device: torch.device
    dtype: torch.dtype
    batch: int = BATCH
    """Samples in one forward pass."""
    offload: Path | None = None
    """Where hidden states lie between layers; with the unfinished output if None."""


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    part: int
    parts: int
    name: str
    output_error: float | None
    """Of the linear calibrated last; None where there is none."""


Listener = Callable[[Progress], None]
Finish = Callable[[Path, Journal], None]


def quantize_checkpoint(
    stored: StoredModel,
    output: Path,
    recipe: Recipe,
    *,
    work: CalibrationSettings | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    listener: Listener = lambda progress: None,
    finish: Finish = lambda directory, journal: None,
) -> None:
    """Write `stored` to `output` as a GPTQ v1 checkpoint in `glm` names.

    work: needed by every method but rtn. finish: called with the whole directory before it takes
    its name. Goes on where a run for the same was cut off. Raises OptionError or CheckpointError.
    """
    if recipe.is_calibrated and work is None:
        raise OptionError(f"method {recipe.method} needs calibration samples")
    formats = recipe.formats(stored)
    shards = lay_out(stored, formats, shard_bytes)
    asked = _asked(stored, recipe, shard_bytes, work)
    with Target(output, overwrite=overwrite, source=stored.directory, asked=asked) as target:
        if not target.is_resumed:
            refuse_full_disk(
                target.directory, output, total_bytes(shards) + _states_bytes(stored, work)
            )
        done = target.journal.tensors
        with ShardWriter(target.directory, shards, finished=done) as writer:
            _Run(stored, recipe, formats, work, target).write_all(writer, listener)
        config = stored.config.untied() if recipe.head.is_quantized else stored.config
        write_companions(stored, target.directory, config, gptq_settings(formats))
        write_index(target.directory, shards)
        finish(target.directory, target.journal)
        write_checksums(target.directory, leave_out=NOT_SUMMED, known=writer.sums)


class _Run:
    def __init__(
        self,
        stored: StoredModel,
        recipe: Recipe,
        formats: Mapping[Weight, WeightFormat],
        work: CalibrationSettings | None,
        target: Target,
    ) -> None:
        self._stored, self._formats = stored, formats
        self._work, self._target = work, target
        self._stamps = file_stamps(stored)
        self._walk: CalibrationWalk | None = None
        if recipe.is_calibrated and work:
            self._walk = CalibrationWalk(
                stored,
                work.calibration.token_ids,
                _states_directory(work, target),
                method=recipe.method,
                device=work.device,
                dtype=work.dtype,
                batch=work.batch,
            )

    def write_all(self, writer: ShardWriter, listener: Listener) -> None:
        """Write the parts that are not there yet: what lies before, in and after the layers."""
        parts = [list(run) for _, run in groupby(self._formats, key=lambda weight: weight.layer)]
        journal = self._target.journal
        for number, weights in enumerate(parts[journal.parts :], start=journal.parts):
            begun = time.monotonic()
            listener(Progress(number, len(parts), _name(weights), _last_error(journal)))
            for name, rows in self._tensors(weights):
                writer.write(name, rows)
            self._refuse_changed_source()
            journal.tensors, journal.parts = writer.sync(), number + 1
            journal.seconds += time.monotonic() - begun
            journal.peak_bytes = max(journal.peak_bytes, peak_bytes())
            self._target.commit()
            if self._walk and weights[0].layer is not None:
                self._walk.drop(weights[0].layer)
        if self._walk and self._work:
            self._walk.clean()
            if self._work.offload:
                _states_directory(self._work, self._target).rmdir()

    def _tensors(self, weights: list[Weight]) -> NamedTensors:
        if self._walk and weights[0].layer is not None:
            yield from self._calibrated(self._walk, weights[0].layer, weights)
            return
        if self._walk and weights[0].name == EMBEDDING:
            self._walk.begin()
        for weight in weights:
            weight_format = self._formats[weight]
            if weight_format.is_quantized:
                yield from rounded(self._stored, weight, weight_format)
            else:
                yield from copied(self._stored, weight)

    def _calibrated(self, walk: CalibrationWalk, layer: int, weights: list[Weight]) -> NamedTensors:
        prefix = f"model.layers.{layer}."
        made = walk.quantize_layer(
            layer,
            {
                weight.module.removeprefix(prefix): self._formats[weight]
                for weight in weights
                if weight.role == "linear"
            },
        )
        for weight in weights:
            if self._formats[weight].is_quantized:
                codes = made.codes[weight.module]
                yield from coded(weight, self._formats[weight], codes)
            elif weight.name in made.replaced:
                yield weight.name, made.replaced[weight.name]
            else:
                yield from copied(self._stored, weight)
        self._target.journal.reports += [asdict(report) for report in made.reports]

    def _refuse_changed_source(self) -> None:
        if file_stamps(self._stored) != self._stamps:
            raise CheckpointError(f"{self._stored.directory} changed while it was read")


def file_stamps(stored: StoredModel) -> dict[str, list[int]]:
    """[bytes, time of change in ns] of each file of weights, and of config.json."""
    files = {header.file for header in stored.tensors.values()}
    files.add(stored.directory / "config.json")
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}


def _asked(
    stored: StoredModel, recipe: Recipe, shard_bytes: int, work: CalibrationSettings | None
) -> dict[str, Any]:
    """All that the output's bytes depend on, in words."""
    asked: dict[str, Any] = {
        "source": file_stamps(stored),
        "method": recipe.method,
        "weights": str(recipe.linear),
        "head": str(recipe.head),
        "rules": [[*rule.match, str(rule.weight_format)] for rule in recipe.rules],
        "shard bytes": shard_bytes,
        "version": __version__,
    }
    if recipe.is_calibrated and work:
        asked["calibration"] = work.calibration.record
        asked["arithmetic"] = f"{work.dtype} on {work.device.type}, batch {work.batch}"
    return asked


def _states_bytes(stored: StoredModel, work: CalibrationSettings | None) -> int:
    if not work or work.offload:
        return 0
    samples, tokens = work.calibration.token_ids.shape
    return calibration_disk_bytes(stored.config, samples=samples, tokens=tokens, dtype=work.dtype)


def _states_directory(work: CalibrationSettings, target: Target) -> Path:
    """Hidden states lie with the unfinished output, or apart under a name of its own."""
    if work.offload is None:
        return target.directory
    directory = work.offload / f"glm4q-{target.directory.name.strip('.')}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _name(weights: list[Weight]) -> str:
    layer = weights[0].layer
    return weights[0].module if layer is None else f"layer {layer}"


def _last_error(journal: Journal) -> float | None:
    return journal.reports[-1]["output_error"] if journal.reports else None
