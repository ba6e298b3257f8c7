"""Inverse answers agree with the plan, asked over and over."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calculator.cards.card import card_of
from calculator.cards.gpus import find_gpu, load_gpus
from calculator.cards.roofline import step_bytes
from calculator.errors import OptionError
from calculator.memory.settings import RESERVE, Settings
from calculator.questions.grid import grid_contexts, make_grid
from calculator.questions.question import Question
from calculator.questions.solve import (
    TIGHT_BYTES,
    cards_needed,
    cards_that_fit,
    cheapest_change,
    max_context,
    max_gpu_layers,
    verdict,
)
from calculator.questions.subject import Variant
from calculator.questions.variants import Fixed, best_by_card, find_choices, quality_bits
from tests.calculator.asking import ask

MODELS = ("glm-4-9b-chat", "GLM-4-32B-0414", "chatglm3-6b", "glm-4-9b")
BASE = {model: ask(model) for model in MODELS}
VARIANTS = st.builds(
    Variant,
    weights=st.sampled_from(("bf16", "int8", "int4", "nf4", "llm-int8")),
    lm_head=st.sampled_from(("bf16", "int8")),
)
KNOWN: dict[tuple[str, Variant], Question] = {}


@st.composite
def questions(draw: st.DrawFn) -> Question:
    model, variant = draw(st.sampled_from(MODELS)), draw(VARIANTS)
    if (model, variant) not in KNOWN:
        KNOWN[model, variant] = BASE[model].with_variant(variant)
    asked = KNOWN[model, variant]
    return asked.with_settings(
        Settings(
            context=draw(st.integers(1, asked.subject.config.max_position_embeddings)),
            batch=draw(st.integers(1, 8)),
            prefill_chunk=draw(st.sampled_from((64, 512, 4096))),
            kv=draw(st.sampled_from(("bf16", "int8", "int4"))),
            embedding=draw(st.sampled_from(("gpu", "host"))),
            display_reserve=draw(st.sampled_from((0, 600 << 20))),
        )
    )


def need(question: Question, **changes: int) -> int:
    changed = replace(question.settings, **changes)  # type: ignore[arg-type]
    return question.planner.plan(changed).device_bytes("gpu")


@settings(max_examples=200)
@given(question=questions(), gib=st.floats(1, 100))
def test_the_largest_context_fits_and_one_token_more_does_not(
    question: Question, gib: float
) -> None:
    usable = round(gib * (1 << 30))
    most, longest = max_context(question, usable), question.subject.config.max_position_embeddings
    assert 0 <= most <= longest
    if most:
        assert need(question, context=most) <= usable
    if most < longest:
        assert need(question, context=most + 1) > usable


@settings(max_examples=60, deadline=None)
@given(question=questions())
def test_the_cards_that_fit_are_all_that_fit_smallest_first(question: Question) -> None:
    offers = cards_that_fit(question)
    fitting = {gpu.name for gpu in load_gpus() if gpu.reported_bytes >= question.need_bytes}
    assert {offer.gpu.name for offer in offers} == fitting
    sizes = [offer.gpu.reported_bytes for offer in offers]
    assert sizes == sorted(sizes)
    for offer in offers:
        assert offer.margin_bytes == offer.gpu.reported_bytes - question.need_bytes
        assert 0 < offer.decode.low < offer.decode.high


@settings(max_examples=60, deadline=None)
@given(question=questions(), gib=st.floats(2, 40))
def test_the_cheapest_change_fits_and_says_what_it_saves(question: Question, gib: float) -> None:
    usable = round(gib * (1 << 30))
    if question.need_bytes <= usable:
        return
    change = cheapest_change(question, usable)
    if change is None:
        assert need(question, gpu_layers=0) > usable
        return
    assert change.margin_bytes >= 0
    changed = _changed(question, change.option)
    assert changed.need_bytes == question.need_bytes - change.saves_bytes
    assert usable - changed.need_bytes == change.margin_bytes


def _changed(question: Question, option: str) -> Question:
    """Do as the option says."""
    name, value = option.removeprefix("--").replace("-", "_").split(" ")
    variant = question.subject.variant
    if variant and name in ("weights", "lm_head"):
        words = {"weights": variant.weights, "lm_head": variant.lm_head, name: value}
        return question.with_variant(replace(variant, **words))
    number = int(value) if value.isdigit() else value
    return question.with_settings(replace(question.settings, **{name: number}))  # type: ignore[arg-type]


def test_the_cheapest_change_takes_no_more_than_is_needed() -> None:
    question = ask(weights="int4", settings=Settings(context=131_072))
    change = cheapest_change(question, question.need_bytes - (1 << 20))
    assert change is not None
    # 1 MiB short: a smaller chunk does; INT8 KV would save 2.46 GiB.
    assert change.option == "--prefill-chunk 128"
    assert change.saves_bytes < 1 << 30


def test_int8_kv_saves_what_its_bytes_say() -> None:
    question = ask(weights="int4", vram="10", settings=Settings(context=131_072, prefill_chunk=128))
    assert question.card is not None
    change = cheapest_change(question, question.card.usable_bytes)
    assert change is not None
    assert change.option == "--kv int8"
    assert change.saves_bytes == 131_072 * (40_960 - 20_800)


@given(question=questions(), gib=st.floats(1, 60))
@settings(max_examples=40, deadline=None)
def test_layers_on_the_gpu(question: Question, gib: float) -> None:
    usable = round(gib * (1 << 30))
    layers, whole = max_gpu_layers(question, usable), question.subject.config.num_hidden_layers
    if layers is None:
        assert need(question, gpu_layers=0) > usable
        return
    assert need(question, gpu_layers=layers) <= usable
    if layers < whole:
        assert need(question, gpu_layers=layers + 1) > usable


def test_best_variants_fit_and_none_is_beaten_in_all() -> None:
    question = ask(gpu="4070", settings=Settings(context=32_768))
    assert question.card is not None
    choices = find_choices(question, Fixed(context=True)).diverse
    assert len(choices) > 3
    for place, choice in enumerate(choices):
        assert choice.question.need_bytes <= question.card.usable_bytes
        assert choice.max_context >= 32_768
        for better in choices[:place]:
            ours, theirs = quality_bits(choice.question)[:3], quality_bits(better.question)[:3]
            assert better.decode
            assert choice.decode
            assert (
                any(one > other for one, other in zip(ours, theirs, strict=True))
                or choice.max_context > better.max_context
                or choice.decode.high > better.decode.high
            )


@pytest.mark.parametrize(
    ("gpu", "weights", "kv", "context"),
    [
        ("4060", "int4 g128, int8 head", "int8", 131_072),
        ("4070", "int4 g128, int8 head", "int8", 131_072),
        ("3090", "int8 g128, int8 head", "int8", 131_072),
        ("2060", "int4 g128, int8 head", "int8", None),
    ],
)
def test_the_best_way_by_card(gpu: str, weights: str, kv: str, context: int | None) -> None:
    """The whole context comes before finer weights; INT8 loses next to nothing."""
    question = ask(gpu=gpu, settings=Settings(display_reserve=RESERVE["gpu"]))
    best = find_choices(question, Fixed()).fitting[0]
    assert str(best.question.subject.variant) == weights
    assert best.question.settings.kv == kv
    assert context in (None, best.question.settings.context)
    (quick,) = best_by_card(ask(settings=question.settings), [question.card])  # type: ignore[list-item]
    assert quick is not None
    assert quick.question.command() == best.question.command()


def test_a_fixed_part_is_kept() -> None:
    question = ask(gpu="4070", weights="int8", settings=Settings(kv="int4", embedding="host"))
    for choice in find_choices(question, Fixed(weights=True, kv=True, embedding=True)).fitting:
        settings = choice.question.settings
        assert str(choice.question.subject.variant).startswith("int8")
        assert (settings.kv, settings.embedding) == ("int4", "host")


def test_the_embedding_moves_to_the_host_where_little_would_be_left() -> None:
    question = ask(gpu="4060", settings=Settings(context=131_072))
    found = {
        (str(choice.question.subject.variant), choice.question.settings.kv): choice.question
        for choice in find_choices(question, Fixed(context=True)).fitting
    }
    assert found["int4 g128, int8 head", "int8"].settings.embedding == "host"
    roomy = find_choices(ask(gpu="3090"), Fixed(context=True)).fitting[0]
    assert roomy.question.settings.embedding == "gpu"


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_every_format_is_answered_on_several_cards(gpus: int) -> None:
    question = ask(gpu="4090", gpus=gpus)
    choices = find_choices(question, Fixed())
    kinds = {choice.question.subject.variant.weights for choice in choices.fitting}  # type: ignore[union-attr]
    assert kinds == {"bf16", "int8", "int4", "nf4", "llm-int8"}
    assert "group size 128 does not divide" in choices.left_out[0]


def test_cards_that_differ_divide_the_layers() -> None:
    cards = [card_of(find_gpu(name)) for name in ("3090", "3060")]
    question = replace(
        ask(weights="int8", settings=Settings(context=131_072, kv="int8")),
        card=cards[0], gpus=2, others=(cards[1],), split="layers",
    )  # fmt: skip
    first, second = question.shares
    assert (first.layers.start, second.layers.stop) == (0, 40)
    assert first.layers.stop == second.layers.start
    assert first.margin_bytes >= 0
    assert second.margin_bytes >= 0
    whole = ask(weights="int8", settings=question.settings).plan
    assert sum(share.plan.weights_bytes for share in question.shares) == whole.weights_bytes
    assert sum(share.plan.kv_cache_bytes for share in question.shares) == whole.kv_cache_bytes
    assert question.margin_bytes == min(first.margin_bytes, second.margin_bytes)
    # A step reads a row of the embedding, which the first card holds without a head.
    read = sum(step_bytes(share.plan, "gpu", depth=0) for share in question.shares)
    assert read == step_bytes(whole, "gpu", depth=0)


def test_a_shared_prefix_is_cached_once() -> None:
    settings = Settings(context=4096, batch=20)
    shared = replace(settings, shared_prefix=1024)
    token = ask(settings=settings).plan.kv_bytes_per_token
    saved = need(ask(settings=settings)) - need(ask(settings=shared))
    assert saved == 19 * 1024 * token


def test_a_stored_quantized_model_keeps_its_weights() -> None:
    question = replace(
        ask(weights="int4", gpu="3090"), subject=replace(ask().subject, variant=None)
    )
    assert question.card is not None
    choices = find_choices(question, Fixed()).fitting
    assert {choice.question.subject.variant for choice in choices} == {None}
    assert [row.weights for row in make_grid(question)] == ["as stored"] * 4


def test_cards_needed_when_one_does_not_do() -> None:
    question = ask(weights="bf16", gpu="4070")
    assert question.card is not None
    assert cards_needed(question, question.card.usable_bytes) == 2
    eight_bits = ask(weights="int8", gpu="4070")  # 6,848 inputs a card do not divide by 128
    assert cards_needed(eight_bits, 6 << 30) is None


@pytest.mark.parametrize(
    ("margin", "word"),
    [(-1, "no"), (0, "tight"), (TIGHT_BYTES - 1, "tight"), (TIGHT_BYTES, "fits")],
)
def test_verdict(margin: int, word: str) -> None:
    assert verdict(margin) == word


def test_the_grid_is_the_plan() -> None:
    question = ask(gpu="3060")
    rows = make_grid(question)
    assert len(rows) == 5 * 4
    for row in rows:
        assert [cell.context for cell in row.cells] == [1 << power for power in range(10, 18)]
    for weights in ("bf16", "int8", "int4", "nf4", "llm-int8"):
        for kv in ("bf16", "int8", "k8v4", "int4"):
            asked = ask(weights=weights, gpu="3060", settings=Settings(context=32_768, kv=kv))
            row = next(row for row in rows if (row.weights, row.kv) == (weights, kv))
            cell = next(cell for cell in row.cells if cell.context == 32_768)
            assert (cell.need_bytes, cell.margin_bytes) == (asked.need_bytes, asked.margin_bytes)


def test_the_grid_ends_at_the_model() -> None:
    assert grid_contexts(8192) == (1024, 2048, 4096, 8192)
    assert grid_contexts(1_048_576)[-1] == 131_072
    assert grid_contexts(256) == (256,)


def test_layers_and_cards_do_not_mix() -> None:
    with pytest.raises(OptionError, match="gpu layers are for one GPU"):
        ask(gpus=2, settings=Settings(gpu_layers=3))
