"""Fused layers against the layers one by one, and the native attention against float64."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import KV_FORMATS, WeightFormat
from glm4q.kernels.cpu.native import Native
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.model.fused_layers import FusedLayers
from glm4q.text.tokenizer import Tokenizer
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import all_logits, load_on_cpu, memory_of
from tests.paths import ROOT

CPU = torch.device("cpu")
HELD_OUT = ROOT / "quantize" / "data" / "held-out.txt"
KERNELS = (Native(),)
CONFIG = replace(
    tiny.BASE,
    vocab_size=96,
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
)
pytestmark = pytest.mark.skipif(not KERNELS[0].path, reason="the native extension was not built")


def _load(model_type: str, bits: int, dtype: torch.dtype, directory: Path) -> CausalLM:
    config = replace(CONFIG, model_type=model_type, attention_bias=model_type == "glm")
    tiny.save_checkpoint(tiny.transformers_model(config), directory / "dense")
    recipe = Recipe(WeightFormat(bits, 32))
    quantize_checkpoint(StoredModel.open(directory / "dense"), directory / "codes", recipe)
    stored = StoredModel.open(directory / "codes")
    return load_on_cpu(stored, dtype=dtype, kernels=KERNELS)


def _memory(directory: Path, dtype: torch.dtype, kv: str, *, room: int, batch: int) -> Memory:
    stored = StoredModel.open(directory / "codes")
    return memory_of(stored, room, dtype=dtype, kernels=KERNELS, kv=kv, batch=batch)


def _steps(model: CausalLM, memory: Memory, token_ids: Tensor, pieces: list[int]) -> Tensor:
    """The last logits of each piece, [pieces, B, V]."""
    return torch.stack([model(piece, memory).clone() for piece in token_ids.split(pieces, 1)])


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("model_type", "bits"), [("glm", 4), ("glm4", 8)])
def test_fused_layers_are_the_layers(
    model_type: str,
    bits: int,
    dtype: torch.dtype,
    kv: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _load(model_type, bits, dtype, tmp_path)
    pieces = [3, 1, 1, 1, 1, 1, 1, 300, 1, 5, 1]
    token_ids = torch.randint(96, (2, sum(pieces)))
    fused = _memory(tmp_path, dtype, kv, room=sum(pieces), batch=2)
    found = _steps(model, fused, token_ids, pieces)
    assert model._fused_layers(fused) != [None]
    monkeypatch.setattr(FusedLayers, "of", lambda *_: None)
    single = _memory(tmp_path, dtype, kv, room=sum(pieces), batch=2)
    expected = _steps(model, single, token_ids, pieces)
    assert model._fused_layers(single) == [None]
    wrong = (found - expected).square().mean((1, 2)).sqrt() / expected.square().mean((1, 2)).sqrt()
    # In float32 they agree to the last bits until one number of many is rounded to another code of
    # its activations or its cache, which takes hundreds of tokens, of a cache in 4 bits fewer.
    if dtype == torch.float32:
        assert wrong[: {"k8v4": 3, "int4": 1}.get(kv, 7)].median() < 1e-6
    assert wrong.max() < {torch.float32: 0.03, torch.bfloat16: 0.05}[dtype]


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize(("model_type", "bits"), [("glm", 4), ("glm4", 8)])
def test_fused_rows_of_several_lengths_are_those_rows(
    model_type: str, bits: int, kv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three rows of a cache, not in its order, run together after prompts of their own."""
    model = _load(model_type, bits, torch.float32, tmp_path)
    prompts = {2: torch.randint(96, (1, 1)), 0: torch.randint(96, (1, 9))}
    token_ids = torch.randint(96, (4, 2, 1))

    def run() -> tuple[Tensor, bool]:
        memory = _memory(tmp_path, torch.float32, kv, room=100, batch=3)
        rows = {place: memory.row(place) for place in prompts}
        for place, prompt in prompts.items():
            model(prompt, rows[place])
        together = memory.together(list(rows.values()))
        logits = torch.stack([model(each, together).clone() for each in token_ids])
        return logits, model._fused_layers(together) != [None]

    found, fused = run()
    monkeypatch.setattr(FusedLayers, "of", lambda *_: None)
    expected, single = run()
    assert (fused, single) == (True, False)
    wrong = (found - expected).square().mean(2).sqrt() / expected.square().mean(2).sqrt()
    assert wrong.median() < 1e-6
    assert wrong.max() < 0.03


@pytest.mark.demo
def test_fused_demo_says_the_same(
    quantized_demo: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = StoredModel.open(quantized_demo(8))
    model = load_on_cpu(stored, kernels=KERNELS)
    tokenizer = Tokenizer.from_directory(stored.directory)
    token_ids = torch.tensor([tokenizer.encode(HELD_OUT.read_text())[:64]])
    found = all_logits(model, token_ids, memory_of(stored, 80, kernels=KERNELS))
    monkeypatch.setattr(FusedLayers, "of", lambda *_: None)
    expected = all_logits(model, token_ids, memory_of(stored, 80, kernels=KERNELS))
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()
