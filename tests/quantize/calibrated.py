"""Calibrated runs on tiny models: what several tests share."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from quantize.calibrate.samples import Calibration, read_calibration
from quantize.pipeline import CalibrationSettings, quantize_checkpoint
from quantize.recipe import Recipe

CPU = torch.device("cpu")
INT4 = WeightFormat(4, 32)


def token_file(directory: Path, vocabulary: int = 96, tokens: int = 1024, seed: int = 0) -> Path:
    """Token ids as a line of JSON: the one form that needs no tokenizer."""
    ids = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(seed))
    path = directory / f"tokens-{seed}.jsonl"
    path.write_text(json.dumps({"token_ids": ids.tolist()}))
    return path


def settings(
    stored: StoredModel, directory: Path, *, batch: int = 4, seed: int = 0, samples: int = 16
) -> CalibrationSettings:
    """Samples of 64 random tokens, in float32."""
    shown = calibration(stored, directory, seed=seed, samples=samples)
    return CalibrationSettings(shown, CPU, torch.float32, batch)


def calibration(
    stored: StoredModel, directory: Path, *, seed: int = 0, samples: int = 16
) -> Calibration:
    path = token_file(directory, stored.config.vocab_size, tokens=64 * samples, seed=seed)
    return read_calibration(path, stored, samples=samples, length=64)


def quantized(
    source: Path,
    output: Path,
    method: str,
    weight_format: WeightFormat = INT4,
    *,
    heals: bool = False,
) -> StoredModel:
    """A checkpoint made by a method."""
    stored = StoredModel.open(source)
    shown = replace(settings(stored, output.parent), heals=heals)
    quantize_checkpoint(stored, output, Recipe(weight_format, method=method), calibration=shown)
    return StoredModel.open(output)
