"""A checkpoint directory is what its config says, whatever names it uses, or it is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.names import IGNORED, pieces
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import INDEX, SINGLE
from calculator.errors import CheckpointError, ConfigError
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, WeightFormat, assign_formats
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.paths import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"GLM-4's indices are not in {DATA}")

Q, K, V = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
Change = Callable[[dict[str, Tensor]], object]


def change_tensors(checkpoint: Path, change: Change) -> None:
    tensors = load_file(checkpoint / SINGLE)
    change(tensors)
    save_file(tensors, checkpoint / SINGLE)


def change_config(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def quantized(checkpoint: Path, linear: WeightFormat, head: WeightFormat = BF16) -> Path:
    output = checkpoint.parent / str(linear)
    quantize_checkpoint(StoredModel.open(checkpoint), output, Recipe(linear, head))
    return output


@pytest.fixture
def int4(checkpoint: Path) -> Path:
    """The tiny checkpoint in INT4, groups of 32."""
    return quantized(checkpoint, WeightFormat(4, group_size=32))


# Sound checkpoints


def test_a_whole_checkpoint_is_held_as_its_inventory_in_bf16(checkpoint: Path) -> None:
    stored = StoredModel.open(checkpoint)
    assert stored.formats == dict.fromkeys(weights(stored.config), BF16)
    assert not stored.is_quantized


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_any_float_on_disk_is_bf16_in_memory(checkpoint: Path, dtype: torch.dtype) -> None:
    def cast(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    change_tensors(checkpoint, cast)
    assert set(StoredModel.open(checkpoint).formats.values()) == {BF16}


@pytest.mark.parametrize("kept", [False, True], ids=["left-out", "kept"])
def test_a_tied_head_may_be_left_out_or_kept(
    checkpoint: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def tie(tensors: dict[str, Tensor]) -> None:
        del tensors["lm_head.weight"]
        if kept:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    change_config(checkpoint, tie_word_embeddings=True)
    change_tensors(checkpoint, tie)
    assert "head" not in {weight.role for weight in StoredModel.open(checkpoint).formats}
    assert not caplog.records


def test_a_stored_head_that_differs_from_the_embedding_is_used_and_told(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def differ(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["lm_head.weight"][-1, -1] += 1

    change_config(checkpoint, tie_word_embeddings=True)
    change_tensors(checkpoint, differ)
    stored = StoredModel.open(checkpoint)
    assert "head" in {weight.role for weight in stored.formats}
    (record,) = caplog.records
    assert "lm_head, that differs from the embedding" in record.getMessage()


def test_a_tied_head_that_is_quantized_is_one_of_its_own(checkpoint: Path) -> None:
    """The embedding is not: such files say tie_word_embeddings of the model they were made of."""
    directory = quantized(checkpoint, WeightFormat(4, group_size=32), WeightFormat(8))
    expected = StoredModel.open(directory).formats
    change_config(directory, tie_word_embeddings=True)
    assert StoredModel.open(directory).formats == expected


def test_halves_of_gate_up_proj_may_be_stored_apart(checkpoint: Path) -> None:
    def split(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "gate_up_proj" in name]:
            gate, up = tensors.pop(name).chunk(2)
            tensors[name.replace("gate_up_proj", "gate_proj")] = gate.clone()
            tensors[name.replace("gate_up_proj", "up_proj")] = up.clone()

    change_tensors(checkpoint, split)
    stored = StoredModel.open(checkpoint)
    (gate_up, *_) = (weight for weight in weights(stored.config) if "gate_up" in weight.name)
    assert [piece.module for piece in stored.pieces(gate_up)] == [
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
    ]


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """A tiny checkpoint as the authors of GLM-4-9B-Chat publish theirs."""
    return tiny.save_native(tiny.transformers_model(tiny.BASE), tiny.BASE, tmp_path / "native")


def test_native_names_are_read_and_q_k_v_are_runs_of_rows(native: Path) -> None:
    stored = StoredModel.open(native)
    by_name = {weight.name: weight for weight in weights(stored.config)}
    assert set(stored.formats) == set(by_name.values())
    for part in ("weight", "bias"):
        runs = [stored.pieces(by_name[f"model.layers.1.{name}.{part}"]) for name in (Q, K, V)]
        assert [(piece.start, piece.stop) for (piece,) in runs] == [
            (0, 192),
            (192, 288),
            (288, 384),
        ]


@needs_data
@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-1m", "glm-4-9b"])
def test_every_tensor_that_the_authors_publish_is_known(name: str) -> None:
    config = ModelConfig.from_json(DATA / name / "config.json")
    published = set(json.loads((DATA / name / INDEX).read_text())["weight_map"])
    modules = {tensor.rpartition(".")[0] for tensor in published}
    known = {
        f"{piece.module}.{weight.name.rpartition('.')[2]}"
        for weight in weights(config)
        for piece in pieces(config, weight.module, modules)
    }
    assert known == {tensor for tensor in published if not IGNORED.search(tensor)}


# Damaged directories


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.rename(path.with_name("moved")), "is not a directory"),
        (lambda path: (path / "config.json").unlink(), "not a checkpoint: it has no config.json"),
        (lambda path: (path / SINGLE).unlink(), f"neither {SINGLE}"),
        (lambda path: (path / SINGLE).rename(path / "pytorch_model.bin"), "a pickle"),
        (lambda path: (path / SINGLE).write_bytes(b""), "is truncated"),
    ],
    ids=["missing", "no-config", "no-weights", "pickle", "empty"],
)
def test_a_directory_that_is_no_checkpoint_is_refused(
    checkpoint: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=reason):
        StoredModel.open(checkpoint)


def test_a_config_of_another_model_is_refused_by_path(checkpoint: Path) -> None:
    change_config(checkpoint, model_type="llama")
    with pytest.raises(ConfigError, match=r"config\.json: model type 'llama' is not supported"):
        StoredModel.open(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        f"model.layers.1.{K}.weight",
        f"model.layers.1.{K}.bias",
    ],
)
def test_a_missing_tensor_is_named(checkpoint: Path, name: str) -> None:
    change_tensors(checkpoint, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"has no {name}$"):
        StoredModel.open(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.input_layernorm.weight",
        "model.layers.0.post_mlp_layernorm.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.norm.qweight",
        "score.weight",
        "stray",
    ],
)
def test_a_tensor_that_would_be_ignored_is_named(checkpoint: Path, name: str) -> None:
    change_tensors(checkpoint, lambda tensors: tensors.update({name: torch.zeros(96)}))
    with pytest.raises(CheckpointError, match=f"has {name}, which a glm model of 2 layers has not"):
        StoredModel.open(checkpoint)


def test_biases_that_the_config_denies_are_surplus(checkpoint: Path) -> None:
    change_config(checkpoint, attention_bias=False)
    with pytest.raises(CheckpointError, match=r"has model\.layers\.0\.self_attn\.k_proj\.bias"):
        StoredModel.open(checkpoint)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("model.norm.weight", (95,), "has 95 rows of model.norm, which has 96"),
        ("model.norm.weight", (96, 1), r"has shape \[96, 1\]"),
        ("lm_head.weight", (97, 96), "has 97 rows of lm_head, which has 96"),
        ("lm_head.weight", (96, 32), r"has shape \[96, 32\].*must have \[96, 96\]"),
        ("lm_head.weight", (), r"has shape \[\]"),
        (f"model.layers.0.{Q}.bias", (193,), "has 193 rows"),
    ],
)
def test_a_wrong_shape_is_named(
    checkpoint: Path, name: str, shape: tuple[int, ...], reason: str
) -> None:
    change_tensors(
        checkpoint, lambda tensors: tensors.update({name: torch.zeros(shape).bfloat16()})
    )
    with pytest.raises(CheckpointError, match=reason):
        StoredModel.open(checkpoint)


def test_whole_numbers_are_no_weights(checkpoint: Path) -> None:
    change_tensors(
        checkpoint, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(96).long()})
    )
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has dtype I64"):
        StoredModel.open(checkpoint)


def test_a_native_tensor_with_too_few_rows_is_refused(native: Path) -> None:
    name = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    change_tensors(native, lambda tensors: tensors.update({name: tensors[name][:300].clone()}))
    with pytest.raises(CheckpointError, match="has 300 rows, and 384 are needed"):
        StoredModel.open(native)


# GPTQ checkpoints


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
