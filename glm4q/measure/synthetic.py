"""A checkpoint of random numbers in a model's true shapes: its speed without its download.

Codes, scales and rows are random, and each layer has the numbers of the first; files and layout are
those of any other GPTQ checkpoint, so all that reads it, loader and kernels, cannot tell the
difference.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import INDEX
from calculator.errors import OptionError
from calculator.json_files import read_json_object
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import PACK_BITS, WeightFormat
from glm4q.planning.disk import refuse_full_disk
from glm4q.weights.files import save_tensors

SPREAD = 0.02
"""Standard deviation of the weights: activations stay as large as a trained model's."""
ZERO_WORDS = {4: 0x77777777, 8: 0x7F7F7F7F}
"""Middle codes as GPTQ v1 stores them: less one."""
ROWS = 1024
"""Rows of a dense weight that are random; the others repeat them."""
MARK = "random_weights"
"""The key of config.json that marks a synthetic checkpoint; other readers ignore it."""


def open_synthetic(
    directory: Path, config: ModelConfig, formats: Mapping[Weight, WeightFormat]
) -> StoredModel:
    """Open the checkpoint in that directory, and make it first if it is not there.

    Raises OptionError where the directory holds another one, and CheckpointError where the disk is
    full.
    """
    if not directory.exists():
        making = directory.with_name(f".{directory.name}.making")
        shutil.rmtree(making, ignore_errors=True)  # what a run left that was killed
        refuse_full_disk(making, directory, _file_bytes(formats))
        try:
            making.mkdir(parents=True)
            _write(making, config, formats)
            making.rename(directory)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    stored = StoredModel.open(directory)
    if stored.config != config or stored.formats != dict(formats):
        raise OptionError(f"{directory} holds another model than the one asked for; remove it")
    return stored


def has_random_weights(stored: StoredModel) -> bool:
    """Say whether a checkpoint is marked as synthetic. A file, as of GGUF, never is."""
    file = stored.directory / "config.json"
    return file.is_file() and read_json_object(file).get(MARK) is True


def _file_bytes(formats: Mapping[Weight, WeightFormat]) -> int:
    return sum(
        sum(weight_format.parts(weight).values()) for weight, weight_format in formats.items()
    )


def _write(directory: Path, config: ModelConfig, formats: Mapping[Weight, WeightFormat]) -> None:
    """Write a shard for each layer, and for each weight beside the layers."""
    shards: dict[str, dict[Weight, WeightFormat]] = {}
    for weight, weight_format in formats.items():
        name = weight.module if weight.layer is None else f"layer-{weight.layer:03}"
        shards.setdefault(f"{name}.safetensors", {})[weight] = weight_format
    names: dict[str, str] = {}
    drawn: dict[tuple[str, WeightFormat], dict[str, Tensor]] = {}
    for file, held in shards.items():
        tensors = {
            f"{weight.module}.{part}": tensor
            for weight, weight_format in held.items()
            for part, tensor in _drawn_once(weight, weight_format, drawn).items()
        }
        save_tensors(tensors, directory / file)
        names |= dict.fromkeys(tensors, file)
    (directory / INDEX).write_text(json.dumps({"weight_map": names}))
    settings = {"quant_method": "gptq", "checkpoint_format": "gptq", "sym": True}
    quantized = any(weight_format.is_quantized for weight_format in formats.values())
    written = config.to_dict() | {MARK: True}
    written |= {"quantization_config": settings} if quantized else {}
    (directory / "config.json").write_text(json.dumps(written))


def _drawn_once(
    weight: Weight,
    weight_format: WeightFormat,
    drawn: dict[tuple[str, WeightFormat], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return a weight's tensors by their parts; those of a layer are drawn for the first layer.

    To draw each layer anew takes a third of the time of writing the checkpoint.
    """
    if weight.layer is None:
        return dict(_tensors(weight, weight_format))
    key = weight.name.removeprefix(f"model.layers.{weight.layer}."), weight_format
    if key not in drawn:
        drawn[key] = dict(_tensors(weight, weight_format))
    return drawn[key]


def _tensors(weight: Weight, weight_format: WeightFormat) -> Iterator[tuple[str, Tensor]]:
    """Yield the parts of a weight with their names."""
    if not weight_format.is_quantized:
        yield weight.name.removeprefix(f"{weight.module}."), _dense(weight)
        return
    outputs, inputs = weight.shape
    groups, pack = weight_format.groups(inputs), PACK_BITS // weight_format.bits
    words = torch.empty(inputs // pack, outputs, dtype=torch.int32)
    yield "qweight", words.random_(-(2**31), 2**31 - 1)
    zeros = torch.full((groups, outputs // pack), ZERO_WORDS[weight_format.bits], dtype=torch.int32)
    yield "qzeros", zeros
    spread = 2**weight_format.bits / 12**0.5  # of codes that are all equally likely
    scales = torch.rand(groups, outputs).add_(0.5).mul_(SPREAD / spread)
    yield "scales", scales.half()
    yield "g_idx", torch.arange(inputs, dtype=torch.int32) // (inputs // groups)


def _dense(weight: Weight) -> Tensor:
    if weight.role == "norm":
        return torch.ones(weight.shape, dtype=torch.bfloat16)
    rows, *width = weight.shape
    block = torch.randn(min(rows, ROWS), *width).mul_(SPREAD).bfloat16()
    return block.repeat(-(-rows // len(block)), *[1] * len(width))[:rows].contiguous()
