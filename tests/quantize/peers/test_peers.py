"""transformers with GPTQModel loads our checkpoints unchanged, and says the same."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from calculator.questions.widths.slots import Widths
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.kernels.choose import candidates
from glm4q.text.tokenizer import Tokenizer
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
TOKENS = 5

READER = """
import json, sys, torch
from gptqmodel.quantization.config import QuantizeConfig
from safetensors import safe_open
from transformers import AutoModelForCausalLM

def answer(checkpoint, prompt, tokens):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert type(model.model.layers[0].mlp.gate_up_proj).__module__.startswith("gptqmodel")
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    if tokens:
        ids = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                             do_sample=False, eos_token_id=None)
    return {"tokens": ids[0, len(prompt):].tolist(), "logits": logits.tolist()}

def widths(checkpoint):
    settings = QuantizeConfig.from_pretrained(checkpoint)
    names = safe_open(checkpoint + "/model.safetensors", "pt").keys()
    found = {"lm_head is quantized": settings.lm_head}
    for module in {name.rpartition(".")[0] for name in names}:
        if "norm" not in module and "embed" not in module:
            rule = settings.dynamic_get(module)
            bits = settings.dynamic_get(module, "bits", settings.bits)
            found[module] = 16 if rule is False else int(bits)
    return found

questions, mixed = json.load(sys.stdin)
answers = {question[0]: answer(*question) for question in questions}
print("ANSWERS" + json.dumps([answers, widths(mixed)]))
"""
TINY = {
    "glm": [
        *(WeightFormat(4, 32), WeightFormat(4, 32, zero_bits=4)),
        *(WeightFormat(8, 32), WeightFormat(8)),  # its 4-bit CPU kernel takes no whole rows
    ],
    "glm4": [WeightFormat(4, 32)],
}
"""The formats of each model type."""
PROMPT = [5, 80, 41, 0, 77, 13, 13, 62, 9]


@dataclass(frozen=True)
class Theirs:
    """What GPTQModel reads in our checkpoints."""

    tiny: list[Path]
    trained: list[Path]
    mixed: Path
    answers: dict[str, dict[str, list[Any]]]
    """Greedy tokens, and the logits of the first of them, by checkpoint."""
    widths: dict[str, int]


@pytest.fixture(scope="module")
def theirs(
    quantized_demo: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Theirs:
    """One process reads all of them: it takes five seconds to import GPTQModel, and patches."""
    directory = tmp_path_factory.mktemp("peers")
    small, mixed = _tiny_checkpoints(directory), _mixed(directory)
    trained = [quantized_demo(bits) for bits in (4, 8)]
    prompt = _paris(trained[0])
    questions = [(str(each), PROMPT, 0) for each in small]
    questions += [(str(each), prompt, TOKENS) for each in trained]
    ran = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([questions, str(mixed)]),
        capture_output=True,
        text=True,
        cwd=directory,  # GPTQModel writes its log there
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return Theirs(small, trained, mixed, *json.loads(ran.stdout.rpartition("ANSWERS")[2]))


def _tiny_checkpoints(directory: Path) -> list[Path]:
    """Make one for each model type and format, and a healed one."""
    made = []
    for model_type, formats in TINY.items():
        config = replace(tiny.BASE, model_type=model_type)
        model = tiny.transformers_model(config)
        source = tiny.save_checkpoint(model, directory / model_type)
        for weight_format in formats:
            made.append(directory / f"{model_type} {weight_format}")
            quantize_checkpoint(StoredModel.open(source), made[-1], Recipe(weight_format))
    healed = quantized(directory / "glm", directory / "healed", "awq", heals=True)
    return [*made, healed.directory]


def _mixed(directory: Path) -> Path:
    """Some matrices and the head differ from the usual width, and some are not quantized."""
    source = tiny.save_checkpoint(
        tiny.transformers_model(replace(tiny.BASE, vocab_size=96)), directory / "wide"
    )
    stored = StoredModel.open(source)
    quantize_checkpoint(stored, directory / "mixed", replace(_widths(stored), method="rtn"))
    return directory / "mixed"


def _widths(stored: StoredModel) -> Recipe:
    widths = Widths(stored.config, "32")
    bits = {slot.name: (8, 4, 16, 4)[n % 4] for n, slot in enumerate(widths.slots)}
    return recipe_of_widths(widths, {**bits, "lm_head": 8})


def _paris(directory: Path) -> list[int]:
    return Tokenizer.from_directory(directory).encode("The capital of France is")


def _read(directory: Path, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """Read greedy tokens, and the logits of the first of them, by our reference."""
    stored = StoredModel.open(directory)
    model = load_on_cpu(stored, kernels=candidates("reference"))
    runner = runner_of(model, memory_of(stored, 64, kernels=candidates("reference")))
    logits = runner(torch.tensor([prompt]))[0].clone()
    params = SamplingParams(temperature=0, max_tokens=TOKENS)
    return list(token_ids(generate(runner, prompt, params))), logits


@pytest.mark.demo
def test_tiny_checkpoints_in_every_format(theirs: Theirs) -> None:
    for directory in theirs.tiny:
        expected = torch.tensor(theirs.answers[str(directory)]["logits"])
        difference = _read(directory, PROMPT)[1] - expected
        # Its asymmetric kernel rounds scales and zeros; a zero point one off would be over 1 here.
        wrong = difference.square().mean().sqrt() / expected.square().mean().sqrt()
        assert wrong < 0.03, directory.name


@pytest.mark.demo
def test_trained_model_says_the_same(theirs: Theirs) -> None:
    for directory in theirs.trained:
        said = theirs.answers[str(directory)]["tokens"]
        assert said == _read(directory, _paris(directory))[0]
    assert "Paris" in Tokenizer.from_directory(directory).decode(said)


@pytest.mark.demo
def test_gptqmodel_finds_the_width_of_every_matrix(theirs: Theirs) -> None:
    source = StoredModel.open(theirs.mixed.parent / "wide")
    asked = {
        weight.module: each.bits
        for weight, each in _widths(source).formats(source).items()
        if weight.can_be_quantized
    }
    assert theirs.widths == {**asked, "lm_head is quantized": True}
