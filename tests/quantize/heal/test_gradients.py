"""The gradients of healing, against those of transformers' model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.heal.divergence import Head
from quantize.heal.factors import parts_of
from quantize.heal.training import Progress, Trainer
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.quantize.calibrated import INT4

CPU = torch.device("cpu")
TOKENS = 24
MODELS = {
    "glm": tiny.BASE,
    "glm4 with biases, half of each head rotated": replace(
        tiny.BASE, model_type="glm4", attention_bias=True, partial_rotary_factor=0.5
    ),
}


@pytest.fixture(scope="module", params=list(MODELS.values()), ids=list(MODELS))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    config: ModelConfig = request.param
    return config


@pytest.fixture(scope="module")
def source(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    directory = tmp_path_factory.mktemp("heal") / "source"
    return StoredModel.open(tiny.save_checkpoint(tiny.transformers_model(config), directory))


@pytest.fixture(scope="module")
def output(source: StoredModel) -> StoredModel:
    directory = source.directory.parent / "rounded"
    quantize_checkpoint(source, directory, Recipe(INT4))
    return StoredModel.open(directory)


def read(stored: StoredModel, name: str) -> Tensor:
    (weight,) = (each for each in weights(stored.config) if each.name == name)
    return read_weight(stored, weight)


def make_trainer(output: StoredModel, source: StoredModel) -> Trainer:
    head = Head(
        read(output, "lm_head.weight"),
        read(source, "lm_head.weight"),
        read(source, "model.norm.weight"),
        source.config.rms_norm_eps,
    )
    return Trainer(output, head, read(output, "model.embed_tokens.weight"), TOKENS, torch.float32)


def reference(
    output: StoredModel, source: StoredModel, factors: list[Tensor]
) -> tuple[Any, Any, list[Tensor]]:
    """transformers' model whose weights are the quantized ones, with factors, and the source's."""
    student, teacher = (tiny.transformers_model(source.config) for _ in range(2))
    leaves = []
    for part, own in zip(parts_of(output), factors, strict=True):
        leaf = own.clone().requires_grad_()
        leaves.append(leaf)
        for each in part.trained:
            module, _, kind = each.weight.name.rpartition(".")
            factor = each.of(leaf).exp()
            if each.weight.role == "linear":
                quantized = read_quantized(output, each.weight)
                size = quantized.inputs // each.shape[0]
                number = (quantized.dequantize() * factor.repeat_interleave(size, 0)).T
            else:
                number = read_weight(output, each.weight) * factor
            holder = student.get_submodule(module)
            delattr(holder, kind)
            setattr(holder, kind, number)
    return student, teacher, leaves


def test_steps_follow_gradients_of_transformers_model(
    output: StoredModel, source: StoredModel
) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(source.config.vocab_size, (2, TOKENS), generator=generator)
    trainer = make_trainer(output, source)
    progress = Progress.begin(trainer.parts, CPU)
    for part in progress.factors:
        part.copy_(torch.randn(part.shape, generator=generator) * 0.02)
    student, teacher, leaves = reference(output, source, progress.factors)
    with torch.no_grad():
        of_source = last_states(teacher, ids)
        expected = teacher(ids).logits.log_softmax(-1)
    actual = student(ids).logits.log_softmax(-1)
    loss = (expected.exp() * (expected - actual)).sum(-1).mean()
    loss.backward()
    assert trainer.divergence(progress, ids, of_source) == pytest.approx(loss.item(), rel=1e-4)
    assert trainer.step(progress, ids, of_source, 0.0) == pytest.approx(loss.item(), rel=1e-4)
    for leaf, mean in zip(leaves, progress.means, strict=True):
        torch.testing.assert_close(mean * 10, leaf.grad, rtol=1e-3, atol=1e-6)


def last_states(model: Any, ids: Tensor) -> Tensor:
    """What goes into the last norm."""
    kept: list[Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    model(ids)
    hook.remove()
    return kept[0]
