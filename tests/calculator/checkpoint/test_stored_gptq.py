"""A GPTQ checkpoint is what its tensors show, or it is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, ConfigError
from calculator.model.formats import BF16, WeightFormat, assign_formats
from tests.calculator.checkpoint.changes import change_config, change_tensors, quantized


@pytest.fixture
def int4(checkpoint: Path) -> Path:
    """The tiny checkpoint in INT4, groups of 32."""
    return quantized(checkpoint, WeightFormat(4, group_size=32))


@pytest.mark.parametrize(
    ("linear", "head"),
    [
        (WeightFormat(4, group_size=32), BF16),
        (WeightFormat(4, group_size=32), WeightFormat(8)),
        (WeightFormat(4, group_size=32, zero_bits=4), BF16),
        (WeightFormat(8, group_size=32), WeightFormat(8, group_size=32)),
        (WeightFormat(8), BF16),
    ],
    ids=str,
)
def test_headers_tell_the_format_of_every_weight(
    checkpoint: Path, linear: WeightFormat, head: WeightFormat
) -> None:
    stored = StoredModel.open(quantized(checkpoint, linear, head))
    assert stored.formats == assign_formats(stored.config, linear, head)


def test_symmetric_zero_points_and_plain_group_order_are_not_held(int4: Path) -> None:
    held: set[str] = set()
    for weight, weight_format in StoredModel.open(int4).formats.items():
        held.update(weight_format.parts(weight))
    assert held == {"weight", "qweight", "scales"}


def _say_act_order(checkpoint: Path, said: bool | None) -> None:
    settings = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    del settings["desc_act"]
    if said is not None:
        settings["desc_act"] = said
    change_config(checkpoint, quantization_config=settings)


@pytest.mark.parametrize("said", [True, False, None])
def test_act_order_is_what_the_tensors_show(int4: Path, said: bool | None) -> None:
    def reorder(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if name.endswith("g_idx"):
                tensors[name] = tensors[name].flip(0)

    plain = StoredModel.open(int4).formats
    _say_act_order(int4, said)
    assert StoredModel.open(int4).formats == plain
    change_tensors(int4, reorder)
    for weight, weight_format in StoredModel.open(int4).formats.items():
        extra = {"g_idx": weight.shape[1] * 4} if weight_format.is_quantized else {}
        assert weight_format.parts(weight) == {**plain[weight].parts(weight), **extra}


@pytest.mark.parametrize("asymmetric", [False, True])
def test_symmetry_that_no_setting_tells_is_what_the_tensors_show(
    checkpoint: Path, asymmetric: bool
) -> None:
    linear = WeightFormat(4, group_size=32, zero_bits=4 if asymmetric else 0)
    directory = quantized(checkpoint, linear)
    expected = StoredModel.open(directory).formats
    settings = json.loads((directory / "config.json").read_text())["quantization_config"]
    del settings["sym"]
    change_config(directory, quantization_config=settings)
    assert StoredModel.open(directory).formats == expected


def test_act_order_without_an_order_is_refused(int4: Path) -> None:
    quantization = json.loads((int4 / "config.json").read_text())["quantization_config"]
    change_config(int4, quantization_config={**quantization, "desc_act": True})
    change_tensors(int4, lambda tensors: tensors.pop("model.layers.0.mlp.down_proj.g_idx"))
    with pytest.raises(CheckpointError, match=r"no model\.layers\.0\.mlp\.down_proj\.g_idx"):
        StoredModel.open(int4)


@pytest.mark.parametrize(
    ("stated", "offset"),
    [
        ({}, 1),
        ({"checkpoint_format": "gptq"}, 1),
        ({"checkpoint_format": "gptq_v2"}, 0),
        ({"format": "gptq_v2"}, 0),
    ],
    ids=str,
)
def test_zero_points_are_stored_less_one_in_v1_only(
    int4: Path, stated: Mapping[str, str], offset: int
) -> None:
    change_config(int4, quantization_config={"quant_method": "gptq", **stated})
    layouts = StoredModel.open(int4).layouts.values()
    assert {layout.zero_point_offset for layout in layouts} == {offset}


def test_settings_in_a_file_of_their_own_are_read(int4: Path) -> None:
    change_config(int4, quantization_config=None)
    assert StoredModel.open(int4).is_quantized
    (int4 / "quantize_config.json").unlink()
    with pytest.raises(CheckpointError, match="qweight but no quantization_config"):
        StoredModel.open(int4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quant_method": "awq"}, "quantized by awq, but no tensor is"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "by bitsandbytes, but no"),
        ({"quant_method": "compressed-tensors"}, "has no config_groups"),
        ({"quant_method": "fp8"}, "is quantized by 'fp8'; gptq, awq, .*glm4q quantize SOURCE"),
        ({"quant_method": "awq", "version": "gemv"}, "AWQ of version 'gemv'"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:tritonv2"}, "by AutoRound"),
        ({"bits": 4}, "by None"),
        ("gptq", "by 'gptq'; gptq, awq"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "GPTQ format 'marlin'"),
        ({"quant_method": "gptq", "sym": "false"}, "sym must be true or false, not 'false'"),
        ({"quant_method": "gptq", "desc_act": 1}, "desc_act must be true or false, not 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_another_quantization_is_refused_by_name(
    checkpoint: Path, settings: Any, named: str
) -> None:
    change_config(checkpoint, quantization_config=settings)
    with pytest.raises((CheckpointError, ConfigError), match=named):
        StoredModel.open(checkpoint)


DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qweight": torch.zeros(25, 96).int()}, r"\[25, 96\] is not 4 or 8 bits wide"),
        ({"qweight": torch.zeros(20 * 96).int()}, r"\[1920\] is not 4 or 8 bits wide"),
        ({"qweight": torch.zeros(20, 96)}, "dtype F32"),
        ({"qweight": torch.zeros(20, 88).int()}, "scales has shape"),
        ({"scales": torch.zeros(3, 96).half()}, "has 3 groups for 160 inputs"),
        ({"scales": torch.zeros(0, 96).half()}, "has 0 groups for 160 inputs"),
        ({"scales": torch.zeros(()).half()}, "has 0 groups for 160 inputs"),
        ({"scales": torch.zeros(5, 96).int()}, "scales has shape .* and dtype I32"),
        ({"qzeros": torch.zeros(5, 96).int()}, r"qzeros has shape \[5, 96\].*\[5, 12\] is needed"),
        ({"g_idx": torch.zeros(96).int()}, r"g_idx has shape \[96\].*\[160\] is needed"),
        ({"scales": None}, f"no {DOWN}.scales"),
        ({"qzeros": None}, f"no {DOWN}.qzeros"),
        ({"weight": torch.zeros(96, 160).half()}, f"has {DOWN}.weight, which"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_a_damaged_quantized_layer_is_refused(
    int4: Path, changes: Mapping[str, Tensor | None], reason: str
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for part, tensor in changes.items():
            if tensor is None:
                del tensors[f"{DOWN}.{part}"]
            else:
                tensors[f"{DOWN}.{part}"] = tensor

    change_tensors(int4, change)
    with pytest.raises(CheckpointError, match=reason):
        StoredModel.open(int4)


@pytest.mark.parametrize("module", ["model.norm", "model.embed_tokens"])
def test_only_matrices_that_multiply_may_be_stored_as_codes(int4: Path, module: str) -> None:
    def encode(tensors: dict[str, Tensor]) -> None:
        tensors[f"{module}.qweight"] = torch.zeros(12, 96).int()
        del tensors[f"{module}.weight"]

    change_tensors(int4, encode)
    with pytest.raises(CheckpointError, match=f"{module}.qweight"):
        StoredModel.open(int4)
