"""The plan's figures are exact, add up, and never shrink when more is asked."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan, kv_bytes_per_token
from calculator.memory.scratch import DEQUANTIZED_NUMBERS
from calculator.memory.settings import Settings
from calculator.memory.workspace import DECODE_TILE, PREFILL_CHUNK
from calculator.model.architecture import HEAD, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, KV_FORMATS, WeightFormat, assign_formats, refuse_unfit
from calculator.model.presets import PRESETS
from tests.plans import make_plan

CHAT = PRESETS["glm-4-9b-chat"]
INT4 = WeightFormat(4, group_size=128)
INT8 = WeightFormat(8, group_size=128)
FINER = (INT4, INT8, BF16)
KV_BY_BITS = ("int4", "int8", "bf16", "fp32")
DEFAULT = Settings()
MODELS = st.sampled_from(list(PRESETS.values()))


def plan(
    config: ModelConfig = CHAT,
    linear: WeightFormat = BF16,
    head: WeightFormat = BF16,
    settings: Settings = DEFAULT,
) -> MemoryPlan:
    return make_plan(config, assign_formats(config, linear, head), settings)


# Exact figures


@pytest.mark.parametrize(
    ("linear", "weight_bytes"),
    [(BF16, 18_799_902_720), (INT8, 10_769_448_960), (INT4, 6_690_488_320)],
    ids=str,
)
def test_weights_of_glm_4_9b_chat(linear: WeightFormat, weight_bytes: int) -> None:
    assert plan(linear=linear).weights_bytes == weight_bytes


def test_smallest_variant_of_glm_4_9b_chat() -> None:
    smallest = plan(linear=INT4, head=INT8, settings=Settings(embedding="host"))
    on_gpu = sum(term.bytes for term in smallest.weights if term.device == "gpu")
    assert on_gpu == 4_837_916_672
    assert smallest.device_bytes("host") == 1_241_513_984 + 512 * 4096 * 2


def test_zero_points_and_group_order_are_counted() -> None:
    groups, inputs = 63_733_760, 40 * (4 * 4096 + 4096 + 13_696)
    asymmetric = plan(linear=replace(INT4, zero_bits=4))
    assert asymmetric.weights_bytes == 6_690_488_320 + groups // 2
    ordered = plan(linear=replace(INT4, act_order=True))
    assert ordered.weights_bytes == 6_690_488_320 + inputs * 4


@pytest.mark.parametrize(
    ("name", "kv", "token_bytes"),
    [
        ("glm-4-9b-chat", "bf16", 40_960),
        ("glm-4-9b-chat", "int8", 20_800),
        ("glm-4-9b-chat", "int4", 11_520),
        ("glm-4-9b-chat-1m", "bf16", 81_920),
        ("GLM-4-32B-0414", "bf16", 62_464),
    ],
)
def test_a_token_in_the_cache(name: str, kv: str, token_bytes: int) -> None:
    config = PRESETS[name]
    assert kv_bytes_per_token(config, kv) == token_bytes
    whole = plan(config, settings=Settings(context=8192, batch=3, kv=kv))
    assert whole.kv_bytes_per_token == token_bytes
    centers = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert whole.kv_cache_bytes == 3 * (8192 * token_bytes + centers * (kv == "int4"))


@pytest.mark.parametrize(
    ("kv", "head_dim", "head_bytes"),
    [("bf16", 96, 192), ("int8", 96, 96 + 2), ("int4", 128, 64 + 2 * 4), ("int4", 64, 32 + 4)],
)
def test_a_vector_in_the_cache(kv: str, head_dim: int, head_bytes: int) -> None:
    assert [weight_format.head_bytes(head_dim) for weight_format in KV_FORMATS[kv]] == [
        head_bytes
    ] * 2


def test_128k_tokens_take_5_gib_in_bf16() -> None:
    assert plan(settings=Settings(context=131_072)).kv_cache_bytes == 5 << 30


# Sums


@pytest.mark.parametrize("linear", FINER, ids=str)
@pytest.mark.parametrize("compute", ["gpu", "host"])
def test_totals_are_the_sums_of_their_terms(linear: WeightFormat, compute: str) -> None:
    on_gpu = compute == "gpu"
    settings = Settings(embedding="host", compute="gpu" if on_gpu else "host")
    whole = plan(linear=linear, head=INT8, settings=settings)
    parts = [buffer.bytes for term in whole.terms for buffer in term.buffers]
    assert whole.device_bytes("gpu") + whole.device_bytes("host") == sum(parts)
    assert sum(term.bytes for term in whole.weights) == whole.weights_bytes
    on_host = 1_241_513_984 + 512 * 4096 * 2  # the embedding, and its rows on their way
    assert whole.device_bytes("gpu") == (sum(parts) - on_host if on_gpu else 0)


@given(
    config=MODELS,
    linear=st.sampled_from((*FINER, replace(INT4, zero_bits=4, act_order=True))),
    head=st.sampled_from((INT8, BF16)),
    context=st.integers(1, 8192),
    batch=st.integers(1, 64),
    chunk=st.integers(1, 8192),
)
def test_every_formula_gives_the_bytes_of_its_term(
    config: ModelConfig,
    linear: WeightFormat,
    head: WeightFormat,
    context: int,
    batch: int,
    chunk: int,
) -> None:
    for term in plan(config, linear, head, Settings(context, batch, chunk)).terms:
        if any(letter.isdigit() for letter in term.formula):
            sum_of_products = re.sub(r"[^0-9*+()]", "", re.sub(r"\bx\b", "*", term.formula))
            unit = 8 if "bits" in term.formula else 1
            assert eval(sum_of_products) == term.bytes * unit, term.formula


@pytest.mark.parametrize(
    "config", [CHAT, replace(CHAT, tie_word_embeddings=True)], ids=["own", "tied"]
)
def test_every_tensor_is_one_buffer(config: ModelConfig) -> None:
    names = [buffer.name for term in plan(config, linear=INT4).weights for buffer in term.buffers]
    assert len(names) == len(set(names))
    dense = {weight.name for weight in weights(config) if weight.role != "linear"}
    codes = {
        f"{weight.module}.{part}"
        for weight in weights(config)
        if weight.role == "linear"
        for part in ("qweight", "scales")
    }
    assert set(names) == dense | codes


def test_nothing_is_on_the_gpu_when_layers_run_on_the_host() -> None:
    on_host = plan(settings=Settings(embedding="host", compute="host", activation_bits=32))
    assert on_host.device_bytes("gpu") == 0
    assert on_host.overhead_bytes == 0


def test_a_quantized_head_is_no_longer_tied() -> None:
    tied = replace(CHAT, tie_word_embeddings=True)
    assert HEAD not in {weight.name for weight in assign_formats(tied, INT4)}
    assert plan(tied, INT4, INT8).weights_bytes == plan(CHAT, INT4, INT8).weights_bytes


# More never costs less


@given(data=st.data(), config=MODELS, linear=st.sampled_from(FINER))
def test_more_never_costs_less(
    data: st.DataObject, config: ModelConfig, linear: WeightFormat
) -> None:
    settings = Settings(
        context=data.draw(st.integers(1, config.max_position_embeddings)),
        batch=data.draw(st.integers(1, 64)),
        prefill_chunk=data.draw(st.integers(1, 8192)),
        kv=data.draw(st.sampled_from(KV_BY_BITS)),
    )
    more = replace(
        settings,
        context=data.draw(st.integers(settings.context, config.max_position_embeddings)),
        batch=data.draw(st.integers(settings.batch, 128)),
        prefill_chunk=data.draw(st.integers(settings.prefill_chunk, 16_384)),
        kv=data.draw(st.sampled_from(KV_BY_BITS[KV_BY_BITS.index(settings.kv) :])),
    )
    finer = data.draw(st.sampled_from(FINER[FINER.index(linear) :]))
    less_bytes = plan(config, linear, settings=settings).device_bytes("gpu")
    assert plan(config, finer, settings=more).device_bytes("gpu") >= less_bytes


@given(context=st.integers(max(DECODE_TILE, PREFILL_CHUNK), CHAT.max_position_embeddings))
def test_workspace_does_not_grow_with_context_beyond_a_tile(context: int) -> None:
    at_a_tile = plan(settings=Settings(context=max(DECODE_TILE, PREFILL_CHUNK)))
    assert plan(settings=Settings(context=context)).workspace_bytes == at_a_tile.workspace_bytes


def test_workspace_of_a_chunk_is_not_that_of_the_whole_prompt() -> None:
    def workspace_bytes(chunk: int) -> int:
        settings = Settings(context=131_072, prefill_chunk=chunk)
        return plan(settings=settings).workspace_bytes

    assert workspace_bytes(131_072) > 100 * workspace_bytes(PREFILL_CHUNK)


def test_workspace_holds_one_tile_of_dequantized_weights() -> None:
    with_codes, without = (
        {moment.name: moment.bytes for moment in whole.arenas["gpu"].moments}
        for whole in (plan(linear=INT4), plan())
    )
    groups = DEQUANTIZED_NUMBERS // 128
    scratch = 8 * DEQUANTIZED_NUMBERS + 8 * groups
    assert with_codes["prefill feed-forward"] - without["prefill feed-forward"] == scratch
    assert with_codes["prefill attention"] == without["prefill attention"]


# Refusals


def test_a_context_beyond_the_model_is_refused() -> None:
    plan(settings=Settings(context=131_072))
    with pytest.raises(OptionError, match="context 131073 is longer than the model's 131072"):
        plan(settings=Settings(context=131_073))


@pytest.mark.parametrize("name", ["context", "batch", "prefill_chunk"])
@pytest.mark.parametrize("value", [0, -1, 10**400], ids=["zero", "negative", "absurd"])
def test_absurd_settings_are_refused(name: str, value: int) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=f"^{name} must be 1 to 1000000000, not {value}$"):
        Settings(**changes)


def test_an_unknown_kv_format_is_refused() -> None:
    with pytest.raises(
        OptionError, match="kv must be one of fp32, bf16, int8, k8v4, int4, not fp8"
    ):
        Settings(kv="fp8")


def test_a_tied_embedding_stays_where_its_head_is() -> None:
    tied = replace(CHAT, tie_word_embeddings=True)
    on_host = Settings(embedding="host")
    with pytest.raises(OptionError, match="embedding must be gpu"):
        plan(tied, settings=on_host)
    assert plan(tied, head=INT8, settings=on_host).device_bytes("host") == 1_241_513_984 + 4_194_304
    assert plan(tied, settings=replace(on_host, compute="host")).device_bytes("gpu") == 0


@pytest.mark.parametrize("head", [BF16, INT8], ids=str)
def test_a_group_size_that_does_not_fit_is_refused_with_those_that_do(head: WeightFormat) -> None:
    narrow = replace(CHAT, hidden_size=4096 + 32, num_hidden_layers=2)
    with pytest.raises(OptionError) as refused:
        refuse_unfit(assign_formats(narrow, INT4, head))
    assert str(refused.value) == (
        "group size 128 does not divide model.layers.0.self_attn.q_proj, 4128 wide; "
        "32, channel would do"
    )
    refuse_unfit(assign_formats(narrow, WeightFormat(4, group_size=32)))
    refuse_unfit(assign_formats(narrow, WeightFormat(4)))


def test_glm_4_9b_chat_fits_every_group_size() -> None:
    for size in (32, 64, 128, None):
        refuse_unfit(assign_formats(CHAT, WeightFormat(4, size), WeightFormat(8, size)))


@pytest.mark.parametrize(
    ("odd", "side"),
    [({"intermediate_size": 13_700}, "inputs"), ({"vocab_size": 151_553}, "outputs")],
)
def test_a_width_that_cannot_be_packed_is_refused(odd: dict[str, Any], side: str) -> None:
    config = replace(CHAT, **odd)
    with pytest.raises(OptionError, match=f"{side}; GPTQ's [48]-bit format needs a multiple of"):
        refuse_unfit(assign_formats(config, WeightFormat(4), WeightFormat(8)))
