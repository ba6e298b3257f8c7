"""Sources for the store: a tiny model in many shards, and the shapes of GLM-4-9B without data."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from calculator.checkpoint.weight_files import INDEX, SINGLE
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from quantize.output.layout import PlannedTensor
from quantize.output.shards import header


def divide(checkpoint: Path, directory: Path, shard_bytes: int) -> Path:
    """Write a checkpoint of one file as shards, its tensors in the order of the model."""
    directory.mkdir()
    for file in checkpoint.iterdir():
        if file.name != SINGLE:
            (directory / file.name).write_bytes(file.read_bytes())
    tensors = load_file(checkpoint / SINGLE)
    config = ModelConfig.from_json(checkpoint / "config.json")
    names = [weight.name for weight in weights(config) if weight.name in tensors]
    runs: list[list[str]] = [[]]
    for name in [*names, *sorted(set(tensors) - set(names))]:
        if sum(tensors[each].nbytes for each in runs[-1]) + tensors[name].nbytes > shard_bytes:
            runs.append([])
        runs[-1].append(name)
    runs = [run for run in runs if run]
    _write(directory, runs, tensors)
    return directory


def _write(directory: Path, runs: list[list[str]], tensors: dict[str, torch.Tensor]) -> None:
    weight_map: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        file = f"model-{number:05}-of-{len(runs):05}.safetensors"
        save_file({name: tensors[name] for name in run}, directory / file)
        weight_map |= dict.fromkeys(run, file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def hollow_shards(config: ModelConfig, directory: Path, shard_bytes: int) -> Path:
    """Write a checkpoint of true sizes whose data are holes: it takes some kilobytes."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    runs: list[list[PlannedTensor]] = [[]]
    for weight in weights(config):
        tensor = PlannedTensor(weight.name, "BF16", weight.shape)
        if sum(each.nbytes for each in runs[-1]) + tensor.nbytes > shard_bytes:
            runs.append([])
        runs[-1].append(tensor)
    weight_map: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        file = f"model-{number:05}-of-{len(runs):05}.safetensors"
        with (directory / file).open("wb") as stream:
            length = stream.write(header(run))
            stream.truncate(length + sum(each.nbytes for each in run))
        weight_map |= dict.fromkeys((each.name for each in run), file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory
