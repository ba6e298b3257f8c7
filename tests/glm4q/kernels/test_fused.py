"""Fused layers against the layers one by one, and the native attention against float64."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import KV_FORMATS, WeightFormat
from glm4q.decode.runner import Runner
from glm4q.kernels.cpu.extension import extension
from glm4q.kernels.cpu.native import Native
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.text.tokenizer import Tokenizer
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import all_logits, load_on_cpu, memory_of, runner_of
from tests.paths import ROOT

HELD_OUT = ROOT / "quantize" / "data" / "held-out.txt"
CONFIG = tiny.LONG
pytestmark = [
    pytest.mark.skipif(extension() is None, reason="the native extension was not built"),
    pytest.mark.usefixtures("several_threads"),
]

UNROUNDED = {4: 1e-6, 8: 1e-4}
"""The median relative error of a row's logits, by the bits of the weights.

Half of the rows have no 8-bit code that differs: 16 units of 2^-24 are left. Activations that meet
8-bit weights are rounded to 16 bits, so that some code differs in almost every row: by 2^-15 of the
largest number.
"""
UNROUNDED_INT4_CACHE = 1e-5
"""The median where an INT4 cache is read: AVX2 rounds queries and softmax weights to 16 bits.

A code that differs is 2^-15 of the largest of 64 numbers, some 3 times their root mean square, and
so 3 * 2^-15 / 64^0.5 of a sum of 64 products: 1e-5.
"""
ROUNDED = {"int4": 0.1, "k8v4": 0.1}
"""The largest error where codes differ, by KV format; the others' is OTHERS_ROUNDED.

The layers one by one rotate heads and compute SiLU by torch, the fused ones by loops of their own,
both to a few units of 2^-24. So a number that lies so near to the middle between two codes is
rounded to either: one activation in some 100,000, which is one row in thirty of a step, where 1,200
are rounded. A code more or less is 1/127 of the largest of 32 numbers, 0.0025 of a vector of 96; in
an INT4 cache it is 1/15 of the range of 64, 0.05 of that key or value. What is left of it in a
row's logits depends on the weights. Every step starts with equal caches, where a code that differs
would otherwise stay.
"""
OTHERS_ROUNDED = 0.03
Quantized = Callable[[str, int], StoredModel]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """A checkpoint of that model type and width of codes; each is made once."""

    @cache
    def make(model_type: str, bits: int) -> StoredModel:
        directory = tmp_path_factory.mktemp("fused")
        config = replace(CONFIG, model_type=model_type, attention_bias=model_type == "glm")
        tiny.save_checkpoint(tiny.transformers_model(config), directory / "dense")
        recipe = Recipe(WeightFormat(bits, 32))
        quantize_checkpoint(StoredModel.open(directory / "dense"), directory / "codes", recipe)
        return StoredModel.open(directory / "codes")

    return make


def _fused_and_single(model: CausalLM, memories: Iterable[Memory]) -> tuple[Runner, Runner]:
    """Two runners: of fused layers, and of layers one by one."""
    fused, single = (
        runner_of(model, memory, one_by_one=one_by_one)
        for memory, one_by_one in zip(memories, (False, True), strict=True)
    )
    assert fused.kernels[0].layers[1].kernel.name == "native"
    return fused, single


def _copy_cache(source: Runner, target: Runner) -> None:
    pairs = zip(source.memory.cache.tensors, target.memory.cache.tensors, strict=True)
    for ours, theirs in pairs:
        theirs.copy_(ours)


def _wrong(found: Tensor, expected: Tensor) -> Tensor:
    """Of each row of logits, relative."""
    return (found - expected).square().mean(-1).sqrt() / expected.square().mean(-1).sqrt()


def _check(wrong: Tensor, kv: str, bits: int, dtype: torch.dtype = torch.float32) -> None:
    least = UNROUNDED_INT4_CACHE if kv == "int4" else 0
    assert wrong.median() < max(UNROUNDED[bits], least)
    assert wrong.max() < (0.05 if dtype == torch.bfloat16 else ROUNDED.get(kv, OTHERS_ROUNDED))


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("model_type", "bits"), [("glm", 4), ("glm4", 8)])
def test_fused_layers_are_the_layers(
    model_type: str,
    bits: int,
    dtype: torch.dtype,
    kv: str,
    instruction_set: str,
    quantized: Quantized,
) -> None:
    stored, kernels = quantized(model_type, bits), (Native(),)
    model = load_on_cpu(stored, dtype=dtype, kernels=kernels)
    pieces = [3, *[1] * 8, 100, 1, 5, 1]
    memories = [
        memory_of(stored, sum(pieces), dtype=dtype, kernels=kernels, kv=kv, batch=2)
        for _ in range(2)
    ]
    fused, single = _fused_and_single(model, memories)
    wrong = []
    for piece in torch.randint(96, (2, sum(pieces))).split(pieces, 1):
        wrong.append(_wrong(fused(piece), single(piece)))
        _copy_cache(single, fused)
    _check(torch.stack(wrong), kv, bits, dtype)


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize(("model_type", "bits"), [("glm", 4), ("glm4", 8)])
def test_fused_rows_of_several_lengths_are_those_rows(
    model_type: str, bits: int, kv: str, instruction_set: str, quantized: Quantized
) -> None:
    """Two of three rows of a cache, not in its order, run together after prompts of their own."""
    stored, kernels = quantized(model_type, bits), (Native(),)
    model = load_on_cpu(stored, kernels=kernels)
    prompts = {2: torch.randint(96, (1, 1)), 0: torch.randint(96, (1, 9))}
    memories = [memory_of(stored, 100, kernels=kernels, kv=kv, batch=3) for _ in range(2)]
    fused, single = runners = _fused_and_single(model, memories)
    caches = []
    for runner in runners:
        rows = {place: runner.memory.cache.row(place) for place in prompts}
        for place, prompt in prompts.items():
            runner(prompt, [rows[place]])
        caches.append(list(rows.values()))
    wrong = []
    for token_ids in torch.randint(96, (8, 2, 1)):
        _copy_cache(single, fused)
        wrong.append(_wrong(fused(token_ids, caches[0]), single(token_ids, caches[1])))
    _check(torch.stack(wrong), kv, bits)


@pytest.mark.demo
def test_fused_demo_says_the_same(quantized_demo: Callable[[int], Path]) -> None:
    stored = StoredModel.open(quantized_demo(8))
    model = load_on_cpu(stored, kernels=(Native(),))
    tokenizer = Tokenizer.from_directory(stored.directory)
    token_ids = torch.tensor([tokenizer.encode(HELD_OUT.read_text())[:64]])
    memories = [memory_of(stored, 80, kernels=(Native(),)) for _ in range(2)]
    fused, single = _fused_and_single(model, memories)
    found, expected = all_logits(fused, token_ids), all_logits(single, token_ids)
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()
