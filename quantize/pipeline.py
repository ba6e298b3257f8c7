"""Quantize a checkpoint to GPTQ v1, by rounding or with calibration samples."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.healing import healing_disk_bytes
from calculator.memory.making import CHECKING_PART, calibration_disk_bytes
from calculator.model.architecture import EMBEDDING, Weight
from calculator.model.formats import WeightFormat
from glm4q import __version__
from glm4q.planning.disk import refuse_full_disk
from quantize.calibrate.samples import Calibration
from quantize.calibrate.walk import CalibrationWalk
from quantize.heal.heal import HealListener, Samples, heal
from quantize.heal.heal import clean as clean_healing
from quantize.output.companions import gptq_settings
from quantize.output.layout import SHARD_BYTES, lay_out, source_header, total_bytes
from quantize.output.shards import DTYPES
from quantize.output.target import Target, partial_directory
from quantize.output.tensors import NamedTensors, coded, copied, rounded
from quantize.parts import (
    Finish,
    Listener,
    LocalSupply,
    OutputPlan,
    PartSource,
    Supply,
    write_checkpoint,
)
from quantize.recipe import Recipe

BATCH = 4


@dataclass(frozen=True)
class CalibrationSettings:
    """How to calibrate, and where."""

    calibration: Calibration
    device: torch.device
    dtype: torch.dtype
    batch: int = BATCH
    """Samples in one forward pass."""
    offload: Path | None = None
    """The directory of hidden states between layers; with the unfinished output if None."""
    heals: bool = False
    """Whether scales, norms and biases are trained at the end."""

    def disk_bytes(self, stored: StoredModel) -> int:
        """Bytes of hidden states on the disk."""
        samples, tokens = self.calibration.token_ids.shape
        return calibration_disk_bytes(
            stored.config, samples=samples, tokens=tokens, number_bytes=self.dtype.itemsize
        )


@dataclass(frozen=True)
class ByShards:
    """A source that is never on the disk as a whole."""

    supply: Supply
    scratch_bytes: int
    """Bytes of the disk that its files take at once, besides those that are there already."""
    observe: Callable[[list[Weight]], None]
    """Is called with the weights of each part while their files are there."""


def quantize_checkpoint(
    stored: StoredModel,
    output: Path,
    recipe: Recipe,
    *,
    calibration: CalibrationSettings | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    listener: Listener = lambda progress: None,
    heal_listener: HealListener = lambda done, of: None,
    finish: Finish = lambda directory, journal: None,
    by_shards: ByShards | None = None,
) -> None:
    """Write `stored` to `output` as a GPTQ v1 checkpoint in `glm` names.

    calibration: every method but rtn needs it. finish: called with the whole directory before it
    takes its name. by_shards: brings the files of a source that are not all there. A run goes on
    where an earlier one for the same was cut off. Raises OptionError, CheckpointError or
    TokenizerError.
    """
    if recipe.is_calibrated and calibration is None:
        raise OptionError(f"method {recipe.method} needs calibration samples")
    if calibration and recipe.method == "auto":
        samples = len(calibration.calibration.token_ids)
        if samples < CHECKING_PART:
            raise OptionError(
                f"method auto needs {CHECKING_PART} samples at least, one of which chooses, and "
                f"there {'is' if samples == 1 else 'are'} {samples}"
            )
    formats = recipe.formats(stored)
    supply = by_shards.supply if by_shards else LocalSupply(stored)
    plan = OutputPlan(
        stored,
        formats,
        lay_out(stored, formats, shard_bytes),
        stored.config.untied() if recipe.head.is_quantized else stored.config,
        gptq_settings(formats),
        _depends_on(supply, recipe, shard_bytes, calibration),
        _scratch_bytes(stored, formats, calibration)
        + (by_shards.scratch_bytes if by_shards else 0),
        supply,
        by_shards.observe if by_shards else lambda weights: None,
    )

    def make_source(target: Target) -> PartSource:
        if recipe.is_calibrated and calibration:
            return CalibratedParts(
                stored, recipe.method, formats, calibration, target, heal_listener
            )
        return RoundedParts(stored, formats)

    write_checkpoint(
        plan, output, make_source, overwrite=overwrite, listener=listener, finish=finish
    )


def refuse_small_disk(
    stored: StoredModel,
    output: Path,
    recipe: Recipe,
    calibration: CalibrationSettings | None = None,
) -> None:
    """Raise CheckpointError where a disk has too little room for the run that is to come.

    Bytes that an earlier run has written count as room.
    """
    formats, partial = recipe.formats(stored), partial_directory(output)
    needed = total_bytes(lay_out(stored, formats)) + _scratch_bytes(stored, formats, calibration)
    there = sum(file.stat().st_size for file in partial.iterdir()) if partial.is_dir() else 0
    refuse_full_disk(output.parent, output, needed - there)
    if calibration and calibration.offload and not there:
        refuse_full_disk(calibration.offload, calibration.offload, calibration.disk_bytes(stored))


def _scratch_bytes(
    stored: StoredModel,
    formats: Mapping[Weight, WeightFormat],
    calibration: CalibrationSettings | None,
) -> int:
    """Bytes of what a run writes beside the output and deletes."""
    if calibration is None:
        return 0
    states = calibration.disk_bytes(stored) if calibration.offload is None else 0
    return states + (healing_disk_bytes(formats) if calibration.heals else 0)


class RoundedParts:
    """Each weight rounded to nearest by itself, or copied."""

    def __init__(self, stored: StoredModel, formats: Mapping[Weight, WeightFormat]) -> None:
        self._stored, self._formats = stored, formats

    def tensors(self, weights: list[Weight]) -> NamedTensors:
        for weight in weights:
            if self._formats[weight].is_quantized:
                yield from rounded(self._stored, weight, self._formats[weight])
            else:
                yield from copied(self._stored, weight)

    def drop(self, weights: list[Weight]) -> None:
        """Nothing is kept between parts."""

    def complete(self) -> None:
        """Without samples there is nothing to train by."""

    def clean(self) -> None:
        """Nothing is kept between parts."""


class CalibratedParts(RoundedParts):
    """Layers quantized with calibration samples, whose hidden states are kept between layers."""

    def __init__(
        self,
        stored: StoredModel,
        method: str,
        formats: Mapping[Weight, WeightFormat],
        settings: CalibrationSettings,
        target: Target,
        heal_listener: HealListener,
    ) -> None:
        super().__init__(stored, formats)
        self._target, self._offload, self._settings = target, None, settings
        self._heal_listener = heal_listener
        directory = target.directory
        if settings.offload is not None:
            # Two outputs may share the directory, so each has its own inside it.
            directory = settings.offload / f"glm4q-{target.directory.name.strip('.')}"
            directory.mkdir(parents=True, exist_ok=True)
            if not target.is_resumed:
                refuse_full_disk(directory, directory, settings.disk_bytes(stored))
            self._offload = directory
        self._walk = CalibrationWalk(
            stored,
            settings.calibration.token_ids,
            directory,
            method=method,
            device=settings.device,
            dtype=settings.dtype,
            batch=settings.batch,
        )

    def tensors(self, weights: list[Weight]) -> NamedTensors:
        layer = weights[0].layer
        if layer is not None:
            return self._calibrated(layer, weights)
        if weights[0].name == EMBEDDING:
            self._walk.begin()
        return super().tensors(weights)

    def drop(self, weights: list[Weight]) -> None:
        """Delete the hidden states before the layer."""
        if weights[0].layer is not None:
            self._walk.drop(weights[0].layer)

    def complete(self) -> None:
        """Train what is stored beside the codes, if this is asked for and not yet done."""
        settings, journal = self._settings, self._target.journal
        if not settings.heals or journal.healed:
            return
        samples = Samples(
            settings.calibration.token_ids,
            self._walk.source_states,
            settings.dtype,
        )
        healed = heal(
            self._target.directory,
            self._stored,
            samples,
            device=settings.device,
            listener=self._heal_listener,
        )
        journal.healed = asdict(healed)

    def clean(self) -> None:
        """Delete all hidden states, and the files of the training."""
        clean_healing(self._target.directory)
        self._walk.clean()
        if self._offload:
            self._offload.rmdir()

    def _calibrated(self, layer: int, weights: list[Weight]) -> NamedTensors:
        prefix = f"model.layers.{layer}."
        linears = {
            weight.module.removeprefix(prefix): self._formats[weight]
            for weight in weights
            if weight.role == "linear"
        }
        quantized = self._walk.quantize_layer(layer, linears)
        for weight in weights:
            if self._formats[weight].is_quantized:
                codes = quantized.codes[weight.module]
                yield from coded(weight, self._formats[weight], codes)
            elif weight.name in quantized.replaced:
                # It was scaled where and as samples are computed; the file keeps its own dtype.
                dtype = DTYPES[source_header(self._stored, weight).dtype]
                yield weight.name, quantized.replaced[weight.name].to("cpu", dtype)
            else:
                yield from copied(self._stored, weight)
        self._target.journal.reports += [asdict(report) for report in quantized.reports]


def _depends_on(
    supply: Supply,
    recipe: Recipe,
    shard_bytes: int,
    calibration: CalibrationSettings | None,
) -> dict[str, Any]:
    """All that the output's bytes depend on, as JSON."""
    facts: dict[str, Any] = {
        "source": supply.stamps(),
        "method": recipe.method,
        "weights": str(recipe.linear),
        "head": str(recipe.head),
        "rules": [[*rule.match, str(rule.weight_format)] for rule in recipe.rules],
        "shard bytes": shard_bytes,
        "version": __version__,
    }
    if recipe.is_calibrated and calibration:
        facts["calibration"] = calibration.calibration.record
        facts["arithmetic"] = f"{calibration.dtype} on {calibration.device.type}"
        facts["batch"] = calibration.batch
        facts["healing"] = calibration.heals
    return facts
