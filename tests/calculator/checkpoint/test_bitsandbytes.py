"""Checkpoints that transformers saved through bitsandbytes are described by their headers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calculator.checkpoint.layouts.bitsandbytes_headers import STATE, stored_format
from calculator.checkpoint.layouts.layout import StoredModule
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from calculator.model.formats import BF16, LLM_INT8, NF4, WeightFormat, assign_formats


@pytest.fixture(scope="module", params=[{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
                                        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                         "bnb_4bit_use_double_quant": True},
                                        {"load_in_8bit": True}],
                ids=["nf4", "nf4-double", "llm-int8"])  # fmt: skip
def saved(
    request: pytest.FixtureRequest,
    tiny_vocabulary_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tiny checkpoint that transformers quantized and saved."""
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = request.param
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_vocabulary_checkpoint,
        quantization_config=transformers.BitsAndBytesConfig(**settings),
        dtype=torch.bfloat16,
        device_map="cpu",
    )
    directory = tmp_path_factory.mktemp("bitsandbytes") / "model"
    model.save_pretrained(directory)
    return directory


def test_bytes_are_those_of_its_tensors(saved: Path) -> None:
    stored = StoredModel.open(saved)
    held = {
        name: tensor.nbytes
        for name, tensor in load_file(saved / SINGLE).items()
        if not name.endswith((STATE, ".weight_format"))
    }
    planned = {
        f"{weight.module}.{part}" if weight_format.is_quantized else weight.name: size
        for weight in stored.formats
        for weight_format in [_as_stored(stored, weight)]
        for part, size in weight_format.parts(weight).items()
    }
    assert planned == held


def _as_stored(stored: StoredModel, weight: Weight) -> WeightFormat:
    module = StoredModule(weight.module, stored.tensors, has_data=True)
    return stored_format(module) if weight.can_be_quantized else BF16


def test_it_is_held_as_was_predicted(saved: Path) -> None:
    """Also where its scales are codes themselves, which become float32 as they are read."""
    stored = StoredModel.open(saved)
    scheme = next(
        weight_format.scheme
        for weight_format in stored.formats.values()
        if weight_format.is_quantized
    )
    predicted = assign_formats(stored.config, {"nf4": NF4, "llm-int8": LLM_INT8}[scheme])
    assert stored.formats == predicted


@pytest.mark.parametrize("part", ["weight.absmax", "SCB", "weight.quant_map", STATE])
def test_a_missing_part_is_named(saved: Path, tmp_path: Path, part: str) -> None:
    directory = shutil.copytree(saved, tmp_path / "model")
    tensors = load_file(directory / SINGLE)
    name = f"model.layers.0.self_attn.q_proj.{part}"
    if name not in tensors:
        pytest.skip("this format has no such part")
    del tensors[name]
    save_file(tensors, directory / SINGLE)
    with pytest.raises(CheckpointError, match=r"q_proj"):
        StoredModel.open(directory)
