"""What attention makes of errors in queries and keys, against torch's own gradients."""

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from calculator.checkpoint.stored import StoredModel
from calculator.model.config import ModelConfig
from glm4q.model.loader import load_layer
from quantize.calibrate.attention_errors import AttentionErrors, attention_shares, score_gradients
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
    q, k = q.detach(), k.detach()
    torch.testing.assert_close(score_gradients(q, k, v, by_mixed), expected)
    ones = torch.eye(TOKENS).expand(6, TOKENS, TOKENS)  # what is mixed of these are the shares
    shares = F.scaled_dot_product_attention(q, k.repeat_interleave(3, 0), ones, is_causal=True)
    torch.testing.assert_close(attention_shares(q[4], k[1]), shares[4])


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
        measured = errors.add(layer, x, F.rms_norm(x, shape, norm, CONFIG.rms_norm_eps), seed=5)

    for tensor in tensors.values():
        tensor.requires_grad_()
    outputs: Outputs = {}
    forward(CONFIG, tensors, x.unsqueeze(0), rotation, outputs)
    probe = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    attended = outputs["self_attn.o_proj"]
    gradients = torch.autograd.grad(
        attended, [outputs[module] for module in errors.sums], probe.view_as(attended)
    )
    for (module, sums), gradient in zip(errors.sums.items(), gradients, strict=True):
        heads = gradient[0].unflatten(-1, (-1, CONFIG.head_dim))  # [T, heads, D]
        expected = torch.einsum("thd,the->hde", heads, heads)
        size = expected.diagonal(dim1=-2, dim2=-1).sqrt()  # no sum is larger than these' products
        sizes = size.unsqueeze(-1) * size.unsqueeze(-2)
        torch.testing.assert_close(sums / sizes, expected / sizes, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            measured.sizes[module], gradient[0].norm(dim=-1), rtol=1e-4, atol=1e-5
        )
