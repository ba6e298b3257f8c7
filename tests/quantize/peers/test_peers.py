"""transformers with GPTQModel loads our checkpoints unchanged, and says the same."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from calculator.questions.widths.slots import Widths
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.kernels.choose import candidates
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe, recipe_of_widths
from tests import tiny
from tests.glm4q.memories import load_on_cpu, memory_of, runner_of
from tests.quantize.calibrated import quantized

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not importlib.util.find_spec("gptqmodel"),
        reason="GPTQModel is not installed: pip install glm4q[peers], which needs a C compiler",
    ),
]
CPU = torch.device("cpu")
TOKENS = 8

READER = f"""
import json, sys, torch
from transformers import AutoModelForCausalLM
answers = []
for checkpoint, prompt in json.load(sys.stdin):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert type(model.model.layers[0].mlp.gate_up_proj).__module__.startswith("gptqmodel")
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens={TOKENS},
                         do_sample=False, eos_token_id=None)
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    answers.append([out[0, len(prompt):].tolist(), logits.tolist()])
print("ANSWERS" + json.dumps(answers))
"""
WIDTHS_BY_GPTQMODEL = """
import json, sys
from gptqmodel.quantization.config import QuantizeConfig
from safetensors import safe_open
settings = QuantizeConfig.from_pretrained(sys.argv[1])
names = safe_open(sys.argv[1] + "/model.safetensors", "pt").keys()
modules = {name.rpartition(".")[0] for name in names}
widths = {"lm_head is quantized": settings.lm_head}
for module in modules:
    if "norm" in module or "embed" in module:
        continue
    rule = settings.dynamic_get(module)
    bits = 16 if rule is False else settings.dynamic_get(module, "bits", settings.bits)
    widths[module] = int(bits)
print("WIDTHS" + json.dumps(widths))
"""
Answer = tuple[list[int], torch.Tensor]
"""Greedy tokens, and the logits of the first of them."""


def _read_by_transformers(questions: list[tuple[Path, list[int]]], directory: Path) -> list[Answer]:
    """In a process of its own: GPTQModel patches what it finds."""
    ran = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([(str(checkpoint), prompt) for checkpoint, prompt in questions]),
        capture_output=True,
        text=True,
        cwd=directory,  # GPTQModel writes its log there
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    answers = json.loads(ran.stdout.rpartition("ANSWERS")[2])
    return [(tokens, torch.tensor(logits)) for tokens, logits in answers]


def _read(directory: Path, prompt: list[int]) -> Answer:
    stored = StoredModel.open(directory)
    model = load_on_cpu(stored, kernels=candidates("reference"))
    runner = runner_of(model, memory_of(stored, 64, kernels=candidates("reference")))
    logits = runner(torch.tensor([prompt]))[0].clone()
    params = SamplingParams(temperature=0, max_tokens=TOKENS)
    return list(token_ids(generate(runner, prompt, params))), logits


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_tiny_checkpoints_in_every_format(model_type: str, tmp_path: Path) -> None:
    config = replace(tiny.BASE, model_type=model_type)
    source = tiny.save_checkpoint(tiny.transformers_model(config), tmp_path / "source")
    prompt = torch.randint(97, (9,)).tolist()
    formats = [
        *(WeightFormat(4, 32), WeightFormat(4, 32, zero_bits=4)),
        *(WeightFormat(8, 32), WeightFormat(8)),  # its 4-bit CPU kernel takes no whole rows
    ]
    questions = []
    for number, weight_format in enumerate(formats):
        quantize_checkpoint(StoredModel.open(source), tmp_path / str(number), Recipe(weight_format))
        questions.append((tmp_path / str(number), prompt))
    healed = quantized(source, tmp_path / "healed", "awq", heals=True)
    questions.append((healed.directory, prompt))
    for theirs, question in zip(_read_by_transformers(questions, tmp_path), questions, strict=True):
        difference = _read(*question)[1] - theirs[1]
        # Its asymmetric kernel rounds scales and zeros; a zero point one off would be over 1 here.
        assert difference.square().mean().sqrt() < 0.03 * theirs[1].square().mean().sqrt()


@pytest.mark.demo
def test_trained_model_says_the_same(quantized_demo: Callable[[int], Path], tmp_path: Path) -> None:
    tokenizer = LLM.load(quantized_demo(8), device="cpu").tokenizer
    prompt = tokenizer.encode("The capital of France is")
    questions = [(quantized_demo(bits), prompt) for bits in (4, 8)]
    theirs = [tokens for tokens, _ in _read_by_transformers(questions, tmp_path)]
    assert theirs == [_read(*question)[0] for question in questions]
    assert "Paris" in tokenizer.decode(theirs[1])


def test_gptqmodel_finds_the_width_of_every_matrix(tmp_path: Path) -> None:
    """Some matrices and the head differ from the usual width, and some are not quantized."""
    source = tiny.save_checkpoint(
        tiny.transformers_model(replace(tiny.BASE, vocab_size=96)), tmp_path / "source"
    )
    stored = StoredModel.open(source)
    widths = Widths(stored.config, "32")
    bits = {slot.name: (8, 4, 16, 4)[n % 4] for n, slot in enumerate(widths.slots)}
    recipe = recipe_of_widths(widths, {**bits, "lm_head": 8})
    made = tmp_path / "made"
    quantize_checkpoint(stored, made, replace(recipe, method="rtn"))
    asked = {
        weight.module: each.bits
        for weight, each in recipe.formats(stored).items()
        if weight.can_be_quantized
    }
    ran = subprocess.run(
        [sys.executable, "-c", WIDTHS_BY_GPTQMODEL, str(made)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    settings = json.loads(ran.stdout.rpartition("WIDTHS")[2])
    assert settings.pop("lm_head is quantized") is True
    assert settings == asked
