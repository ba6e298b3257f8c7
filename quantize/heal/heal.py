"""Heal a checkpoint whose shards are written: train, and write what was trained in its place."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic

import torch
from safetensors.torch import load_file
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import NumericError
from calculator.model.architecture import EMBEDDING, HEAD, Weight, weights
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.calibrate.activations import Activations
from quantize.calibrate.walk import checking_samples
from quantize.heal.divergence import Head
from quantize.heal.factors import dequantized, healed_tensors
from quantize.heal.kept import FILE, read_progress, save_progress
from quantize.heal.schedule import Schedule
from quantize.heal.training import Progress, Trainer
from quantize.output.working_directory import save_lasting

RESULT = "healed"
"""The file of all trained tensors, until they are in the shards."""
NORM = "model.norm.weight"
SAVING_SECONDS = 20.0
"""The progress is saved so often: it may be a gigabyte. When it is saved changes no number."""

HealListener = Callable[[int, int], None]
"""Is called with the number of steps done, and of all steps."""


@dataclass(frozen=True)
class Samples:
    """Calibration samples, and the source's states of them behind its last layer."""

    token_ids: Tensor
    """int64 [samples, T]."""
    states: Path
    dtype: torch.dtype
    """Of the states' numbers, and of those that the source computed with."""


@dataclass(frozen=True)
class Healed:
    """What healing did, for the quality report."""

    steps: int
    divergences: list[float]
    """The KL divergence on samples that trained nothing, before the first step and at each check.
    The factors of the least one were kept."""


def heal(
    directory: Path,
    source: StoredModel,
    samples: Samples,
    *,
    device: torch.device,
    listener: HealListener = lambda done, of: None,
) -> Healed:
    """Train an unfinished output, or go on with it, and write the trained tensors to its shards.

    Only the head of the source is read. Killed at any moment, it leaves what the next run needs to
    end with the same bytes. Raises CheckpointError or NumericError.
    """
    stored = StoredModel.open(directory)
    trainer = _make_trainer(stored, source, samples, device)
    result = directory / RESULT
    progress = read_progress(directory, device) or Progress.begin(trainer.parts, device)
    if not result.is_file():
        _train(trainer, progress, directory, samples, listener)
        factors = progress.best if progress.checks else progress.factors
        save_lasting(healed_tensors(stored, trainer.parts, factors), result)
    _overwrite(stored, load_file(result))
    return Healed(progress.step, progress.checks)


def clean(directory: Path) -> None:
    """Delete what only a run that goes on with the training would need."""
    for name in (FILE, RESULT):
        (directory / name).unlink(missing_ok=True)


def _train(
    trainer: Trainer,
    progress: Progress,
    directory: Path,
    samples: Samples,
    listener: HealListener,
) -> None:
    """Take all steps that are left, and keep the progress now and then."""
    count, tokens = samples.token_ids.shape
    checking = checking_samples(count)
    schedule = Schedule(checking.start)
    saved = monotonic()
    with Activations(samples.states, count, tokens, trainer.width, samples.dtype) as states:
        while True:
            if checking and schedule.checks_before(progress.step) > len(progress.checks):
                progress.check(_check(trainer, progress, samples, states, checking))
            if progress.step == schedule.steps:
                break
            sample = schedule.sample(progress.step)
            token_ids, of_source = _read(samples, states, sample, trainer)
            loss = trainer.step(progress, token_ids, of_source, schedule.size(progress.step))
            if not isfinite(loss):
                raise NumericError("the divergence from the source while it was healed")
            listener(progress.step, schedule.steps)
            if monotonic() - saved > SAVING_SECONDS:
                save_progress(directory, progress)
                saved = monotonic()
    save_progress(directory, progress)


def _check(
    trainer: Trainer, progress: Progress, samples: Samples, states: Activations, rows: range
) -> float:
    """The mean divergence on samples that train nothing."""
    parts = [trainer.divergence(progress, *_read(samples, states, row, trainer)) for row in rows]
    return sum(parts) / len(parts)


def _read(
    samples: Samples, states: Activations, row: int, trainer: Trainer
) -> tuple[Tensor, Tensor]:
    """Read the tokens of a sample, [1, T], and the source's last states of it."""
    of_source = states.read(row, row + 1).to(trainer.device)
    return samples.token_ids[row : row + 1], of_source


def _make_trainer(
    stored: StoredModel, source: StoredModel, samples: Samples, device: torch.device
) -> Trainer:
    # Gradients vanish in float16's range.
    dtype = torch.float32 if samples.dtype == torch.float16 else samples.dtype
    own, of_source = _heads(stored, source, device, dtype)
    norm = read_weight(stored, _weight(stored, NORM)).to(device).float()
    return Trainer(
        stored,
        Head(own, of_source, norm, stored.config.rms_norm_eps),
        read_weight(stored, _weight(stored, EMBEDDING)),
        samples.token_ids.shape[1],
        dtype,
    )


def _heads(
    stored: StoredModel, source: StoredModel, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Read the heads of the output and of its source: one tensor unless the output's has codes."""
    tied = source.config.tie_word_embeddings
    of_source = _weight(source, EMBEDDING if tied else HEAD)
    dense = read_weight(stored if tied else source, of_source).to(device, dtype)
    if stored.config.tie_word_embeddings:
        return dense, dense
    own = _weight(stored, HEAD)
    if not stored.formats[own].is_quantized:
        return dense, dense
    quantized = read_quantized(stored, own).to(device)
    factors = torch.ones(quantized.scales.shape, device=device)
    return dequantized(quantized, factors, dtype).T.contiguous(), dense


def _weight(stored: StoredModel, name: str) -> Weight:
    (weight,) = (each for each in weights(stored.config) if each.name == name)
    return weight


def _overwrite(stored: StoredModel, tensors: dict[str, Tensor]) -> None:
    """Write tensors where others of their dtypes and shapes lie in the shards."""
    files: dict[Path, int] = {}
    try:
        for name, tensor in tensors.items():
            header = stored.tensors[name]
            if header.file not in files:
                files[header.file] = os.open(header.file, os.O_WRONLY)
            data = tensor.contiguous().flatten().view(torch.uint8).numpy().data
            done = 0
            while done < len(data):
                done += os.pwrite(files[header.file], data[done:], header.start + done)
        for descriptor in files.values():
            os.fsync(descriptor)
    finally:
        for descriptor in files.values():
            os.close(descriptor)
