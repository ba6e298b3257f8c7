"""Every token keeps its position, however the context was appended, dropped and appended again."""

from dataclasses import replace
from functools import cache
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculator.model.formats import KV_FORMATS
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from tests import tiny
from tests.glm4q.memories import all_logits, memory_on_cpu, runner_of

ROOM = 120
CONFIG = replace(
    tiny.BASE, head_dim=64, num_attention_heads=4, num_key_value_heads=2, rope_theta=10.0
)
"""Half of each head is rotated, as in GLM, and fast, so that one position tells."""
OFF_BY = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05, "k8v4": 0.3, "int4": 0.45}
"""The most that logits may be away from those of one pass with a float32 cache, relative to their
root mean square. Random weights suffer more from INT4 than trained ones."""


@cache
def _model() -> CausalLM:
    """Keys have much in common, as those of trained models have."""
    torch.manual_seed(1)
    model = CausalLM(CONFIG).eval()
    for name, parameter in model.named_parameters():
        center = 1.0 if "norm" in name else 0.0
        torch.nn.init.normal_(parameter, center, 1.0 if "k_proj.bias" in name else 0.15)
    return model


def _one_pass(token_ids: list[int]) -> Tensor:
    runner = runner_of(_model(), memory_on_cpu(CONFIG, ROOM))
    return all_logits(runner, torch.tensor([token_ids]))[0]


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def _append(token_ids: list[int], memory: Memory) -> Tensor:
    """Logits of all of them, which go in by chunks."""
    pieces = torch.tensor([token_ids]).split(memory.chunk, 1)
    runner = runner_of(_model(), memory)
    return torch.cat([all_logits(runner, each) for each in pieces], 1)[0]


turns = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 40), st.booleans()), min_size=2, max_size=5
)
"""What part of the context is kept, how many tokens come after it, whether one at a time."""


@pytest.mark.parametrize("kv", KV_FORMATS)
@given(chunk=st.integers(2, 40), turns=turns, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=8, derandomize=True)
def test_turns_and_rewinds_equal_one_pass(
    kv: str, chunk: int, turns: list[tuple[float, int, bool]], seed: int
) -> None:
    memory = memory_on_cpu(CONFIG, ROOM, chunk=chunk, kv=kv)
    random = Random(seed)
    token_ids: list[int] = []
    for kept, fresh, single in turns:
        length = min(int(kept * len(token_ids)), ROOM - 1)
        memory.cache.truncate(length)
        new = [random.randrange(CONFIG.vocab_size) for _ in range(min(fresh, ROOM - length))]
        token_ids = token_ids[:length] + new
        pieces = [[each] for each in new] if single else [new]
        found = torch.cat([_append(piece, memory) for piece in pieces])
        assert memory.cache.length == len(token_ids)
        assert _distance(found, _one_pass(token_ids)[length:]) < OFF_BY[kv]


def test_tokens_one_position_off_are_told_apart() -> None:
    """So that the test above can fail."""
    token_ids = torch.randint(CONFIG.vocab_size, (60,)).tolist()
    memory = memory_on_cpu(CONFIG, ROOM)
    _append(token_ids[:40], memory)
    for tensor in memory.cache.tensors:
        tensor[:, :, :, 40] = tensor[:, :, :, 39]
    memory.cache.advance(1)
    assert _distance(_append(token_ids[40:], memory), _one_pass(token_ids)[40:]) > 0.55
