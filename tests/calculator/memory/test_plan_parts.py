"""Slack, bitsandbytes' layouts, tensor parallelism, layers on the host."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calculator.cards.roofline import (
    DECODE_EFFICIENCY,
    Rates,
    decode_band,
    prefill_band,
    step_bytes,
)
from calculator.errors import OptionError
from calculator.memory.allocator import LARGE_SEGMENT, SMALL_SEGMENT, reserved_bytes
from calculator.memory.settings import Settings
from calculator.model.architecture import Weight, num_parameters, weights
from calculator.model.formats import LLM_INT8, NF4, WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from calculator.model.tensor_parallel import notes, split
from tests.plans import make_plan

CHAT = PRESETS["glm-4-9b-chat"]
MIB = 1 << 20


# Allocator slack


@pytest.mark.parametrize(
    ("sizes", "reserved"),
    [
        ([], 0),
        ([1], SMALL_SEGMENT),
        ([MIB, MIB], SMALL_SEGMENT),
        ([MIB, MIB, 1], 2 * SMALL_SEGMENT),
        ([8 * MIB, 8 * MIB], LARGE_SEGMENT),
        ([8 * MIB] * 3, 2 * LARGE_SEGMENT),  # 4 MiB are left of the first: too few for 8
        ([11 * MIB], 12 * MIB),
        ([214 * MIB], 214 * MIB),
    ],
)
def test_segments(sizes: list[int], reserved: int) -> None:
    assert reserved_bytes(sizes) == reserved


@given(st.lists(st.integers(1, 64 * MIB), max_size=60))
def test_segments_hold_what_is_asked_for(sizes: list[int]) -> None:
    reserved = reserved_bytes(sizes)
    assert reserved >= sum(sizes)
    assert reserved % SMALL_SEGMENT == 0


# bitsandbytes


def test_nf4_of_glm_4_9b_chat() -> None:
    plan = make_plan(CHAT, assign_formats(CHAT, NF4), Settings())
    linears = 8_157_921_280
    # codes, a float32 scale for 64 weights, 16 float32 of code book for each of 240 linears
    linear_bytes = linears // 2 + linears // 64 * 4 + 240 * 64
    assert plan.weights_bytes == linear_bytes + 2 * 2 * 620_756_992 + 2 * 516_096


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(256, 512), (100, 96)])
def test_nf4_is_what_bitsandbytes_makes(double: bool, shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    import torch

    codes, state = functional.quantize_4bit(
        torch.randn(shape), blocksize=64, quant_type="nf4", compress_statistics=double
    )
    made = {"weight": codes, "weight.absmax": state.absmax, "weight.quant_map": state.code}
    if double:
        made["weight.nested_absmax"] = state.state2.absmax
        made["weight.nested_quant_map"] = state.state2.code
    weight_format = replace(NF4, scheme="nf4-double") if double else NF4
    planned = weight_format.parts(Weight("a.weight", shape, "linear"))
    assert planned == {name: tensor.nbytes for name, tensor in made.items()}


def test_llm_int8_has_a_scale_a_row() -> None:
    parts = LLM_INT8.parts(Weight("a.weight", (100, 96), "linear"))
    assert parts == {"weight": 9600, "SCB": 400}


# Several cards


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_parts_of_the_model_make_it_up(gpus: int) -> None:
    weight_format = WeightFormat(4, 32)
    part, held = split(CHAT, assign_formats(CHAT, weight_format), gpus)
    whole = {weight.name: weight.numel for weight in weights(CHAT)}
    for weight in held:
        parts = whole[weight.name] / weight.numel
        if weight.role == "norm":
            assert parts == 1
        elif ".k_proj" in weight.name or ".v_proj" in weight.name:
            assert parts == min(gpus, 2)
        else:
            assert parts == pytest.approx(gpus, rel=1e-3)  # the vocabulary is padded
    assert part.num_key_value_heads == max(2 // gpus, 1)
    assert num_parameters(part) * gpus >= num_parameters(CHAT)


def test_what_cannot_be_split_is_said() -> None:
    assert "cannot be split 4 ways: each stands on 2 GPUs" in notes(CHAT, 4)[0]
    with pytest.raises(OptionError, match=r"on 2 GPUs.*128 does not divide .*down_proj, 6848"):
        split(CHAT, assign_formats(CHAT, WeightFormat(4, 128)), 2)
    with pytest.raises(OptionError, match="num_attention_heads 32, and 3 does not"):
        split(CHAT, assign_formats(CHAT, WeightFormat(4, 32)), 3)
    for gpus in (0, -1, 65, 10**9):
        with pytest.raises(OptionError, match="gpus must be 1 to 64"):
            split(CHAT, assign_formats(CHAT, WeightFormat(4, 32)), gpus)


# Layers on the host


@pytest.mark.parametrize(
    ("layers", "embedding"),
    [(0, "gpu"), (1, "host"), (13, "gpu"), (28, "host"), (39, "gpu"), (40, "host")],
)
def test_layers_move_whole(layers: int, embedding: str) -> None:
    settings = Settings(embedding="host" if embedding == "host" else "gpu")
    formats = assign_formats(CHAT, WeightFormat(4, 128))
    whole = make_plan(CHAT, formats, settings)
    parted = make_plan(CHAT, formats, replace(settings, gpu_layers=layers))
    assert parted.weights_bytes == whole.weights_bytes
    assert parted.kv_cache_bytes == whole.kv_cache_bytes
    on_gpu = sum(term.bytes for term in parted.kv_cache if term.device == "gpu")
    assert on_gpu * 40 == whole.kv_cache_bytes * layers
    for weight in weights(CHAT):
        holders = {
            term.device
            for term in parted.weights
            for buffer in term.buffers
            if buffer.name.startswith(f"{weight.module}.")
        }
        if weight.layer is not None:
            assert holders == {"host" if weight.layer < 40 - layers else "gpu"}


def test_a_hidden_state_crosses_the_bus_once_or_twice() -> None:
    formats = assign_formats(CHAT, WeightFormat(4, 128))
    whole = make_plan(CHAT, formats, Settings())
    assert whole.bus_bytes_per_token == 0
    for layers in (None, 30, 0):
        settings = Settings(gpu_layers=layers, embedding="host")
        assert make_plan(CHAT, formats, settings).bus_bytes_per_token == 4096 * 2
    for layers in (30, 0):  # the embedding's rows come from the GPU, and come back to it
        settings = Settings(gpu_layers=layers)
        assert make_plan(CHAT, formats, settings).bus_bytes_per_token == 2 * 4096 * 2


def test_more_layers_than_the_model_has() -> None:
    formats = assign_formats(CHAT, WeightFormat(4, 128))
    with pytest.raises(OptionError, match="gpu layers must be 0 to the model's 40, not 41"):
        make_plan(CHAT, formats, Settings(gpu_layers=41))
    with pytest.raises(OptionError, match="gpu layers must be 0 or more, not -1"):
        Settings(gpu_layers=-1)


# Speed


def test_decode_reads_the_plan_once() -> None:
    formats = assign_formats(CHAT, WeightFormat(4, 128))
    plan = make_plan(CHAT, formats, Settings(context=131_072, kv="int8"))
    read = plan.weights_bytes - 1_241_513_984 + 32_768 * 20_800  # no embedding, a part of the KV
    assert step_bytes(plan, "gpu", depth=32_768) == read
    band = decode_band(plan, Rates(bandwidth=272e9, flops=1e15), depth=32_768)
    low, high = DECODE_EFFICIENCY
    assert (band.low, band.high) == pytest.approx((low * 272e9 / read, high * 272e9 / read))


def test_a_tied_head_reads_the_embedding() -> None:
    tied = replace(CHAT, tie_word_embeddings=True)
    plan = make_plan(tied, assign_formats(tied, WeightFormat(4, 128)), Settings())
    assert step_bytes(plan, "gpu", depth=0) == plan.weights_bytes


def test_the_host_slows_decoding() -> None:
    formats = assign_formats(CHAT, WeightFormat(4, 128))
    rates = Rates(bandwidth=272e9, flops=30e12)
    speeds = [
        decode_band(make_plan(CHAT, formats, Settings(gpu_layers=layers)), rates, depth=1024).high
        for layers in (0, 20, 39, 40)
    ]
    assert speeds == sorted(speeds)
    assert speeds[-1] > 3 * speeds[0]


def test_prefill_is_bound_by_its_sums() -> None:
    plan = make_plan(CHAT, assign_formats(CHAT, WeightFormat(4, 128)), Settings(context=131_072))
    rates = Rates(bandwidth=1e15, flops=100e12)
    short = prefill_band(plan, rates, depth=1024)
    # two sums a weight of the linears, and 4 x 4,096 a layer for each cached token
    flops = 2 * 8_157_921_280 + 40 * 4 * 4096 * 512
    assert short.high == pytest.approx(0.65 * 100e12 / flops)
    assert prefill_band(plan, rates, depth=131_072).high < short.high / 3
