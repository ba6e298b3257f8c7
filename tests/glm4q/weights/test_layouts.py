"""What other programs quantized reads as they read it, under every naming scheme."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import CheckpointError
from calculator.model.formats import WeightFormat
from glm4q.cli import main
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import all_logits, load_on_cpu, memory_of, runner_of
from tests.glm4q.weights import layouts

INT4 = WeightFormat(4, 32)
ASYMMETRIC = WeightFormat(4, 32, zero_bits=4)
INT8 = WeightFormat(8, 32)


@pytest.fixture(scope="module")
def gptq(tmp_path_factory: pytest.TempPathFactory) -> dict[WeightFormat, Path]:
    """Tiny checkpoints that this project quantized."""
    folder = tmp_path_factory.mktemp("layouts")
    source = tiny.save_checkpoint(tiny.transformers_model(tiny.BASE), folder / "source")
    made = {}
    for number, linear in enumerate((INT4, ASYMMETRIC, INT8)):
        made[linear] = folder / f"made-{number}"
        quantize_checkpoint(StoredModel.open(source), made[linear], Recipe(linear))
    return made


def dequantized(directory: Path) -> dict[str, Tensor]:
    """Every weight as float32 numbers."""
    stored = StoredModel.open(directory)
    return {
        weight.name: read_quantized(stored, weight).dequantize().T
        if weight_format.is_quantized
        else read_weight(stored, weight).float()
        for weight, weight_format in stored.formats.items()
    }


def assert_same(one: Path, other: Path) -> None:
    expected = dequantized(other)
    for name, tensor in dequantized(one).items():
        assert torch.equal(tensor, expected[name]), name


def export(source: Path, output: Path, to: str) -> Path:
    assert main(["export", str(source), "--to", to, "-o", str(output)]) == 0
    return output


KINDS = [
    "gptq",
    "gptq-act-order",
    "gptq-asymmetric",
    "gptq-int8",
    "awq",
    "compressed",
    "nf4",
    "int8",
]


@pytest.fixture(scope="module")
def of_kind(
    gptq: dict[WeightFormat, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A checkpoint of each kind under Hugging Face's names, gate_up_proj whole."""
    folder = tmp_path_factory.mktemp("kinds")
    kinds = {
        "gptq": gptq[INT4],
        "gptq-asymmetric": gptq[ASYMMETRIC],
        "gptq-int8": gptq[INT8],
        "gptq-act-order": layouts.act_order(gptq[ASYMMETRIC], folder / "act-order"),
        "awq": layouts.awq(gptq[ASYMMETRIC], folder / "awq"),
        "compressed": export(gptq[ASYMMETRIC], folder / "compressed", "compressed-tensors"),
    }
    wide = tiny.save_checkpoint(
        tiny.transformers_model(replace(tiny.BASE, hidden_size=128, intermediate_size=192)),
        folder / "wide",
    )
    for kind, weights in (("nf4", "nf4"), ("int8", "llm-int8")):
        kinds[kind] = folder / kind
        assert main(["quantize", str(wide), "-o", str(kinds[kind]), "--weights", weights]) == 0
    return kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [layouts.native, layouts.split_gate_up], ids=["native", "split"])
def test_every_format_reads_alike_under_every_naming_scheme(
    change: layouts.Change, kind: str, of_kind: dict[str, Path], tmp_path: Path
) -> None:
    if kind in ("nf4", "int8"):
        pytest.importorskip("bitsandbytes")
    changed = change(of_kind[kind], tmp_path / "changed")
    assert_same(changed, of_kind[kind])


def test_activation_order_that_no_setting_tells_is_read(
    gptq: dict[WeightFormat, Path], tmp_path: Path
) -> None:
    """Groups in another order than the inputs', while desc_act says false: weights and export."""
    ordered = layouts.act_order(gptq[INT4], tmp_path / "ordered")
    assert layouts.settings(ordered)["desc_act"] is False
    stored, tensors = StoredModel.open(ordered), load_file(ordered / SINGLE)
    (weight, *_) = (each for each in stored.formats if each.role == "linear")
    scales, g_idx = (tensors[f"{weight.module}.{part}"] for part in ("scales", "g_idx"))
    quantized = read_quantized(stored, weight)
    expected = (quantized.codes() - 8) * scales[g_idx.long()].float()
    assert torch.equal(quantized.dequantize(), expected)
    exported = export(ordered, tmp_path / "exported", "gptq")
    assert layouts.settings(exported)["desc_act"] is True
    assert_same(exported, ordered)
    assert main(["verify", str(ordered)]) == 1  # its file is not the one of SHA256SUMS
    (ordered / "SHA256SUMS").unlink()
    assert main(["verify", str(ordered)]) == 0


def test_verify_names_groups_that_are_not_filled_evenly(
    gptq: dict[WeightFormat, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(gptq[INT4] / SINGLE)
    name = "model.layers.0.mlp.down_proj.g_idx"
    tensors[name][0] = 1
    damaged = layouts.change(gptq[INT4], tmp_path / "damaged", tensors)
    (damaged / "SHA256SUMS").unlink()
    assert main(["verify", str(damaged)]) == 1
    assert f"{name} puts 31 inputs into group 0, and 32 belong there" in capsys.readouterr().err


def test_awq_packs_as_another_program_does() -> None:
    utils = pytest.importorskip("gptqmodel.quantization.awq.utils.packing_utils")
    from glm4q.weights.awq_tensors import unpack_outputs

    codes, zeros = torch.randint(16, (64, 32)), torch.randint(16, (2, 32))
    for ours, theirs in zip((codes, zeros), utils.pack_awq(codes, zeros, 4), strict=True):
        assert torch.equal(unpack_outputs(theirs), ours.int())


@pytest.mark.parametrize(
    ("packing", "version"),
    [("auto_round:auto_gptq", "gptq"), ("auto_round", "gptq_v2"), ("auto_round:auto_awq", "awq")],
)
def test_auto_round_packs_as_gptq_or_awq(
    packing: str, version: str, gptq: dict[WeightFormat, Path], tmp_path: Path
) -> None:
    source = gptq[ASYMMETRIC]
    quantization = {**layouts.settings(source), "packing_format": packing}
    del quantization["checkpoint_format"]
    quantization["quant_method"] = "auto-round"
    tensors = load_file(source / SINGLE)
    if version == "awq":
        tensors = load_file(layouts.awq(source, tmp_path / "awq") / SINGLE)
    for name in tensors:
        if version == "gptq_v2" and name.endswith("qzeros"):
            tensors[name] += 0x11111111
    made = layouts.change(source, tmp_path / "made", tensors, quantization_config=quantization)
    assert_same(made, source)


def test_logits_of_compressed_tensors_are_those_of_transformers(
    gptq: dict[WeightFormat, Path], tmp_path: Path
) -> None:
    """transformers reads no asymmetric ones: it takes packed zero points for plain ones."""
    pytest.importorskip("compressed_tensors")
    transformers = pytest.importorskip("transformers")
    directory = export(gptq[INT4], tmp_path / "out", "compressed-tensors")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.arange(3, 30).unsqueeze(0)
    with torch.no_grad():
        expected = theirs.eval()(ids).logits
    stored = StoredModel.open(directory)
    found = all_logits(runner_of(load_on_cpu(stored), memory_of(stored, 40)), ids)
    assert (found - expected).norm() / expected.norm() < 3e-2


def test_halves_that_are_quantized_differently_are_refused(
    gptq: dict[WeightFormat, Path], tmp_path: Path
) -> None:
    split = layouts.split_gate_up(gptq[INT4], tmp_path / "split")
    other = load_file(layouts.split_gate_up(gptq[INT8], tmp_path / "other") / SINGLE)
    tensors = load_file(split / SINGLE)
    for part in ("qweight", "qzeros", "scales", "g_idx"):
        name = f"model.layers.0.mlp.up_proj.{part}"
        tensors[name] = other[name]
    save_file(tensors, split / SINGLE)
    with pytest.raises(CheckpointError, match=r"gate_up_proj differently: int4 g32 and int8 g32"):
        StoredModel.open(split)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "float-quantized"}, "compressed-tensors' format float-quantized"),
        ({"transform_config": {"config_groups": {"a": {}}}}, "transform_config, which is not"),
    ],
)
def test_other_compressed_tensors_are_refused_by_name(
    change: dict[str, object], message: str, of_kind: dict[str, Path], tmp_path: Path
) -> None:
    source = of_kind["compressed"]
    quantization = {**layouts.settings(source), **change}
    made = layouts.change(
        source, tmp_path / "made", load_file(source / SINGLE), quantization_config=quantization
    )
    with pytest.raises(CheckpointError, match=message):
        StoredModel.open(made)
