"""What attention makes of errors in queries and keys, against torch's own gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from calculator.checkpoint.stored import StoredModel
from calculator.model.config import ModelConfig
from glm4q.model.loader import load_layer
from quantize.calibrate.attention_errors import AttentionErrors, is_measured, score_gradients
from quantize.calibrate.rotation import Rotation
from quantize.heal.layer import Outputs, forward
from tests import tiny
from tests.glm4q.memories import weight_kernels

CPU = torch.device("cpu")
TOKENS = 17
CONFIG: ModelConfig = replace(tiny.BASE, attention_bias=True, partial_rotary_factor=0.5)


def test_gradients_by_scores_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    q, by_mixed = torch.randn(2, 6, TOKENS, 8, generator=generator)
    k, v = torch.randn(2, 2, TOKENS, 8, generator=generator)
    q.requires_grad_()
    k.requires_grad_()
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    expected = torch.autograd.grad(mixed, (q, k), by_mixed)
    found = score_gradients(q.detach(), k.detach(), v, by_mixed)
    torch.testing.assert_close(found, expected)


def test_sums_are_those_of_gradients_through_the_layer(tmp_path: Path) -> None:
    directory = tiny.save_checkpoint(tiny.transformers_model(CONFIG), tmp_path / "source")
    stored = StoredModel.open(directory)
    layer = load_layer(stored, 1, weight_kernels(stored))
    rotation = Rotation.of_positions(CONFIG, TOKENS, CPU)
    x = torch.randn(TOKENS, CONFIG.hidden_size, generator=torch.Generator().manual_seed(1))
    x /= x.square().mean(-1, keepdim=True).sqrt()  # a probe is divided by this
    tensors = {
        name: each.detach().T if each.dim() == 2 else each.detach()
        for name, each in layer.named_parameters()
    }
    norm, shape = tensors["input_layernorm.weight"], (CONFIG.hidden_size,)
    errors = AttentionErrors.zeros(CONFIG, rotation)
    with torch.inference_mode():
        errors.add(layer, x, F.rms_norm(x, shape, norm, CONFIG.rms_norm_eps), seed=5)

    for tensor in tensors.values():
        tensor.requires_grad_()
    outputs: Outputs = {}
    forward(CONFIG, tensors, x.unsqueeze(0), rotation, outputs)
    probe = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    attended = outputs["self_attn.o_proj"]
    gradients = torch.autograd.grad(
        attended, [outputs[module] for module in errors.sums], probe.view_as(attended)
    )
    for sums, gradient in zip(errors.sums.values(), gradients, strict=True):
        heads = gradient[0].unflatten(-1, (-1, CONFIG.head_dim))  # [T, heads, D]
        expected = torch.einsum("thd,the->hde", heads, heads)
        torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("samples", "measured"), [(3, 3), (16, 16), (63, 63), (64, 32), (285, 36)])
def test_few_samples_are_all_measured(samples: int, measured: int) -> None:
    assert sum(is_measured(sample, samples) for sample in range(samples)) == measured
