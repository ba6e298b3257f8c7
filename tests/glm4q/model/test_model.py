"""Logits against transformers' GLM models: the same weights, the same numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from calculator.checkpoint.stored import StoredModel
from calculator.model.config import ModelConfig
from glm4q.model.decoder import CausalLM
from tests import tiny
from tests.glm4q.memories import all_logits, load_on_cpu, memory_on_cpu, prefill, runner_of

CPU = torch.device("cpu")

SHAPES = {
    "plain": tiny.BASE,
    "one kv head": replace(tiny.BASE, num_key_value_heads=1),
    "a kv head each": replace(tiny.BASE, num_key_value_heads=6),
    "two kv heads": replace(tiny.BASE, num_attention_heads=10, num_key_value_heads=2, head_dim=12),
    "whole heads rotated": replace(tiny.BASE, partial_rotary_factor=1.0),
    "quarter rotated": replace(tiny.BASE, partial_rotary_factor=0.25),
    "no bias": replace(tiny.BASE, attention_bias=False),
    "tied": replace(tiny.BASE, tie_word_embeddings=True),
    "odd widths": replace(tiny.BASE, hidden_size=50, intermediate_size=77, vocab_size=61),
    "large rope base": replace(tiny.BASE, rope_theta=5e6),
}


def _load(directory: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    return load_on_cpu(StoredModel.open(directory), dtype=dtype)


def _logits(
    model: CausalLM, input_ids: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Of all positions, in one pass."""
    batch, tokens = input_ids.shape
    memory = memory_on_cpu(model.config, tokens, batch=batch, dtype=dtype)
    return all_logits(runner_of(model, memory), input_ids)


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_equal_transformers(shape: ModelConfig, model_type: str, tmp_path: Path) -> None:
    config = replace(shape, model_type=model_type)
    reference = tiny.transformers_model(config)
    model = _load(tiny.save_checkpoint(reference, tmp_path))
    input_ids = torch.randint(config.vocab_size, (2, 43))
    with torch.no_grad():
        expected = reference(input_ids).logits
    torch.testing.assert_close(_logits(model, input_ids), expected)


def test_native_names_load_to_the_same_logits(tmp_path: Path) -> None:
    reference = tiny.transformers_model(tiny.BASE)
    named = _load(tiny.save_checkpoint(reference, tmp_path / "glm"))
    native = _load(tiny.save_native(reference, tiny.BASE, tmp_path / "native"))
    input_ids = torch.randint(tiny.BASE.vocab_size, (1, 20))
    torch.testing.assert_close(
        _logits(native, input_ids), _logits(named, input_ids), rtol=0, atol=0
    )


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_chunked_prefill_and_decode_equal_one_pass(tiny_checkpoint: Path, chunk: int) -> None:
    model = _load(tiny_checkpoint)
    token_ids = torch.randint(model.config.vocab_size, (50,)).tolist()
    whole = _logits(model, torch.tensor([token_ids]))[0]
    runner = runner_of(model, memory_on_cpu(model.config, 50, chunk=chunk))
    first = prefill(runner, token_ids[:40])
    torch.testing.assert_close(first, whole[39])
    for place in range(40, 50):
        step = prefill(runner, [token_ids[place]])
        torch.testing.assert_close(step, whole[place])


def test_rewound_cache_continues_as_if_nothing_had_been(tiny_checkpoint: Path) -> None:
    model = _load(tiny_checkpoint)
    token_ids = torch.randint(model.config.vocab_size, (30,)).tolist()
    runner = runner_of(model, memory_on_cpu(model.config, 40))
    prefill(runner, [*token_ids[:20], 3, 5, 7])
    runner.memory.cache.truncate(20)
    continued = prefill(runner, token_ids[20:])
    torch.testing.assert_close(continued, _logits(model, torch.tensor([token_ids]))[0, -1])


def test_bfloat16_stays_near_float32(tiny_checkpoint: Path) -> None:
    input_ids = torch.randint(97, (1, 30))
    exact = _logits(_load(tiny_checkpoint), input_ids)
    half = _load(tiny_checkpoint, torch.bfloat16)
    rounded = _logits(half, input_ids, torch.bfloat16)
    assert (rounded - exact).square().mean() < 1e-3 * exact.square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prompts_that_run_together_end_with_the_logits_of_each(
    tiny_checkpoint: Path, dtype: torch.dtype
) -> None:
    model = _load(tiny_checkpoint, dtype)
    prompts = torch.randint(97, (3, 9))
    memories = [memory_on_cpu(model.config, 9, dtype=dtype, batch=batch) for batch in (3, 1, 1, 1)]
    together = runner_of(model, memories[0])(prompts)
    for row, memory in enumerate(memories[1:]):
        alone = runner_of(model, memory)(prompts[row : row + 1])
        assert (together[row] - alone[0]).abs().max() < 0.02 * alone.abs().max()


@pytest.mark.demo
def test_demo_model_is_as_exact_as_transformers(demo_checkpoint: Path) -> None:
    """30 layers of float32 rounding: judged by the distance to transformers in float64."""
    reference = AutoModelForCausalLM.from_pretrained(demo_checkpoint, dtype=torch.float32)
    input_ids = torch.randint(49_152, (4, 64), generator=torch.Generator().manual_seed(1))
    ours = _logits(_load(demo_checkpoint), input_ids)
    with torch.no_grad():
        theirs = reference(input_ids).logits
        exact = reference.double()(input_ids).logits
    assert (ours - exact).square().mean() < 1.5 * (theirs - exact).square().mean()
    assert torch.equal(ours.argmax(-1), exact.argmax(-1))
