"""The plan predicts to the byte what is held: weights, KV cache and workspace, of random models."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device, Settings
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, KV_FORMATS, assign_formats
from glm4q.memory.allocation import Memory, Places
from glm4q.model.decoder import CausalLM
from tests import tiny
from tests.glm4q.memories import runner_of
from tests.plans import make_plan

CPU = torch.device("cpu")
PLACES: Places = {"gpu": CPU, "host": CPU}


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads, shared = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return replace(
        tiny.BASE,
        model_type=draw(st.sampled_from(("glm", "glm4"))),
        vocab_size=draw(st.integers(2, 99)),
        hidden_size=draw(st.integers(1, 80)),
        intermediate_size=draw(st.integers(1, 150)),
        num_hidden_layers=draw(st.integers(1, 4)),
        num_key_value_heads=kv_heads,
        num_attention_heads=kv_heads * shared,
        head_dim=draw(st.sampled_from((8, 48, 64, 128, 192))),
        partial_rotary_factor=draw(st.sampled_from((0.25, 0.5, 1.0))),
        attention_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        max_position_embeddings=1000,
    )


@st.composite
def plans(draw: st.DrawFn) -> MemoryPlan:
    """bfloat16 models in all placements, in every KV format that takes their heads."""
    config = draw(configs())
    kinds = [kv for kv in KV_FORMATS if kv not in ("k8v4", "int4") or config.head_dim % 64 == 0]
    compute: Device = draw(st.sampled_from(("gpu", "host")))
    split = compute == "gpu" and draw(st.booleans())
    asked = Settings(
        context=draw(st.integers(1, 1000)),
        batch=draw(st.integers(1, 3)),
        prefill_chunk=draw(st.integers(1, 1200)),
        kv=draw(st.sampled_from(kinds)),
        embedding=compute if config.tie_word_embeddings else draw(st.sampled_from(("gpu", "host"))),
        compute=compute,
        gpu_layers=draw(st.integers(1, config.num_hidden_layers)) if split else None,
    )
    return make_plan(config, assign_formats(config, BF16), asked)


@given(plans())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_what_is_predicted_is_held(plan: MemoryPlan) -> None:
    memory = Memory.allocate(plan, PLACES, torch.bfloat16)
    assert memory.cache.nbytes == plan.kv_cache_bytes
    for device, part in zip(plan.layers, memory.parts, strict=True):
        assert part.workspace.block.nbytes == plan.arenas[device].bytes
    rows = sum(term.bytes for term in plan.workspace if term.name == "embedding rows")
    assert (0 if memory.rows is None else memory.rows.nbytes) == rows
    model = CausalLM(plan.config).bfloat16()
    weights = {each.data_ptr(): each.nbytes for each in model.state_dict().values()}
    assert sum(weights.values()) == plan.weights_bytes


@given(plans(), st.data())
@settings(deadline=None, max_examples=20, derandomize=True)
def test_a_full_context_fits_what_is_held(plan: MemoryPlan, data: st.DataObject) -> None:
    """The last tokens of the context run in the buffers that were planned."""
    memory = Memory.allocate(plan, PLACES, torch.bfloat16)
    for tensor in memory.cache.tensors:
        tensor.zero_()
    tokens = data.draw(st.integers(1, plan.chunk))
    memory.cache.advance(plan.settings.context - tokens)
    model = CausalLM(plan.config).bfloat16()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    ids = torch.randint(plan.config.vocab_size, (plan.settings.batch, tokens))
    assert runner_of(model, memory)(ids).isfinite().all()
    assert memory.cache.length == plan.settings.context
