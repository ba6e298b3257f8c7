"""A step allocates nothing that the plan does not list."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.decode.generate import generate
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.measure.peaks import peak_of
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.planning.serving import matmul_bytes
from tests.glm4q.memories import CPU, plan_on_cpu, runner_of

SMALL = 4096
"""Bytes that torch may take for itself: a scalar, an empty tensor."""


@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
@pytest.mark.parametrize("tokens", [1, 100, 256])
@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_dense_model(model_type: str, tokens: int, kv: str) -> None:
    config = replace(
        PRESETS["glm-4-9b-chat"],
        model_type=model_type,
        hidden_size=512,
        intermediate_size=1408,
        num_attention_heads=8,
        head_dim=64,
        num_hidden_layers=2,
        vocab_size=2000,
    )
    plan = plan_on_cpu(config, 3000, dtype=torch.bfloat16, chunk=256, kv=kv)
    memory = Memory.allocate(plan, {"host": CPU}, torch.bfloat16)
    held = sum(tensor.nbytes for tensor in memory.tensors)
    assert held == plan.kv_cache_bytes + plan.arenas["host"].bytes
    model = CausalLM(config).bfloat16().eval()
    memory.cache.advance(3000 - tokens)
    input_ids = torch.randint(2000, (1, tokens))
    allowed = matmul_bytes(tokens, torch.bfloat16, CPU) + SMALL
    runner = runner_of(model, memory)
    assert peak_of(lambda: runner(input_ids), CPU) < allowed


SMALL_GLM = replace(
    PRESETS["glm-4-9b-chat"],
    hidden_size=512,
    intermediate_size=1408,
    num_attention_heads=8,
    head_dim=64,
    num_hidden_layers=2,
    vocab_size=2000,
)


@pytest.mark.parametrize("kv", ["bf16", "int8", "int4"])
def test_rows_of_different_lengths(kv: str) -> None:
    plan = plan_on_cpu(SMALL_GLM, 3000, dtype=torch.bfloat16, chunk=64, kv=kv, batch=3)
    memory = Memory.allocate(plan, {"host": CPU}, torch.bfloat16)
    held = sum(tensor.nbytes for tensor in memory.tensors)
    assert held == plan.kv_cache_bytes + plan.arenas["host"].bytes
    model = CausalLM(SMALL_GLM).bfloat16().eval()
    runner = runner_of(model, memory)
    rows = [memory.cache.row(row) for row in range(3)]
    for row, length in zip(rows, (2990, 0, 700), strict=True):
        row.length = length
    allowed = matmul_bytes(64, torch.bfloat16, CPU) + SMALL
    for running in ([rows[1]], rows, rows[:2]):
        input_ids = torch.randint(2000, (len(running), 1))
        runner(input_ids, running)  # steps are cut once
        assert peak_of(partial(runner, input_ids, running), CPU) < allowed
    assert [row.length for row in rows] == [2994, 6, 702]


def test_drafted_tokens() -> None:
    plan = plan_on_cpu(SMALL_GLM, 3000, dtype=torch.bfloat16, chunk=64, draft_tokens=7)
    memory = Memory.allocate(plan, {"host": CPU}, torch.bfloat16)
    held = sum(tensor.nbytes for tensor in memory.tensors)
    assert held == plan.kv_cache_bytes + plan.arenas["host"].bytes
    model = CausalLM(SMALL_GLM).bfloat16().eval()
    allowed = matmul_bytes(64, torch.bfloat16, CPU) + SMALL
    runner = runner_of(model, memory)
    for tokens in (8, 3, 1):
        memory.cache.length = 2900
        input_ids = torch.randint(2000, (1, tokens))
        assert runner(input_ids, last=tokens).shape == (tokens, 2000)
        memory.cache.length = 2900
        assert peak_of(partial(runner, input_ids, last=tokens), CPU) < allowed


@pytest.mark.demo
@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_model(
    bits: int, dtype: str, kernel: str, quantized_shallow_demo: Callable[[int], Path]
) -> None:
    directory = quantized_shallow_demo(bits)
    wish = Wish(context=700, prefill_chunk=128)
    llm = LLM.load(directory, device="cpu", dtype=dtype, kernel=kernel, wish=wish)
    runner = llm.new_runner()
    operators = sum(term.bytes for term in llm.plan.workspace if term.name == "operators")
    for tokens in (128, 75, 1):
        runner.memory.cache.length = 700 - tokens
        input_ids = torch.randint(2000, (1, tokens))
        assert peak_of(partial(runner, input_ids), CPU) <= operators + SMALL


@pytest.mark.demo
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_choosing_a_token(quantized_shallow_demo: Callable[[int], Path], penalty: float) -> None:
    llm = LLM.load(quantized_shallow_demo(8), device="cpu", wish=Wish(context=100))
    runner = llm.new_runner()
    params = SamplingParams(1, 0.9, 50, 0.01, penalty, max_tokens=3, seed=1)
    planned = llm.plan.workspace_bytes - llm.plan.arenas["host"].bytes
    assert peak_of(lambda: list(generate(runner, [1, 2, 3], params)), CPU) <= planned
