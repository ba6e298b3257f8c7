"""A checkpoint directory is what its config says, whatever names it uses, or it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.names import IGNORED, pieces
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import INDEX, SINGLE
from calculator.errors import CheckpointError, ConfigError
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, WeightFormat
from tests import tiny
from tests.calculator.checkpoint.changes import change_config, change_tensors, quantized
from tests.paths import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"GLM-4's indices are not in {DATA}")

Q, K, V = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
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
