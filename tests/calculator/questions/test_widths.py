"""Widths that fill a card: the choice against all choices, and the plan's bytes."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calculator.cards.card import Card, find_card
from calculator.errors import ConfigError, DoesNotFitError, OptionError
from calculator.memory.settings import Settings
from calculator.model.presets import PRESETS
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.questions.widths.fill import Filling, fill_card
from calculator.questions.widths.knapsack import TOLERANCE, Level, choose_levels
from calculator.questions.widths.sensitivity import alike
from calculator.questions.widths.slots import HEAD_SLOT, Costs, Widths

MIB = 1 << 20
GLM4 = PRESETS["glm-4-9b-chat"]

LEVELS = st.lists(
    st.builds(Level, st.integers(1, 40), st.integers(0, 40).map(float)), min_size=1, max_size=3
)


@given(items=st.lists(LEVELS, min_size=1, max_size=6), budget=st.integers(0, 150))
@settings(max_examples=150)
def test_no_choice_is_better(items: list[list[Level]], budget: int) -> None:
    fitting = [
        sum(level.cost for level in levels)
        for levels in product(*items)
        if sum(level.bytes for level in levels) <= budget
    ]
    chosen = choose_levels(items, budget)
    if chosen is None:
        assert not fitting
        return
    levels = [each[place] for each, place in zip(items, chosen, strict=True)]
    assert sum(level.bytes for level in levels) <= budget
    cost = sum(level.cost for level in levels)
    assert min(fitting) <= cost <= min(fitting) / (1 - TOLERANCE)


def _question(card: Card | None, *, context: int = 32 << 10, margin: int = 0) -> Question:
    asked = Settings(context, kv="int8", embedding="host", display_reserve=256 * MIB, margin=margin)
    return Question(Subject("glm-4-9b-chat", GLM4, {}, "config", None), asked, card)


def _costs(widths: Widths) -> Costs:
    """Costs that fall from layer to layer, larger where a matrix is small."""
    costs = {}
    for number, slot in enumerate(widths.slots):
        whole = (1 + number % 4) / (5 + number)
        costs[slot.name] = {8: whole / 200, **({4: whole} if 4 in slot.bits else {})}
    return costs


def _fill(card: Card | None, margin: int = 0, head: int | None = None) -> Filling:
    widths = Widths(GLM4)
    return fill_card(_question(card, margin=margin), widths, _costs(widths), head)


@pytest.mark.parametrize("name", ["RTX 4060", "RTX 3060 12GB"])
def test_a_card_is_filled_but_for_less_than_a_module(name: str) -> None:
    filling = _fill(find_card(name, None))
    question, widths = filling.question, filling.widths
    assert question.card
    assert filling.spare_bytes == question.card.usable_bytes - question.need_bytes >= 0
    # No matrix can be made wider by the plan's own bytes.
    for slot in widths.slots:
        for bits in slot.bits:
            if bits > filling.bits[slot.name]:
                wider = replace(
                    question.subject, formats=widths.formats({**filling.bits, slot.name: bits})
                )
                assert replace(question, subject=wider).need_bytes > question.card.usable_bytes
    # What is left is less than the smallest matrix takes between two widths.
    smallest = min(sum(weight.numel for weight in slot.weights) for slot in widths.slots) // 2
    assert filling.spare_bytes < 2.2 * smallest
    assert filling.cost < filling.narrowest_cost


def test_margin_stays_free_and_a_given_head_is_kept() -> None:
    card = find_card("RTX 3060 12GB", None)
    free, narrow = _fill(card), _fill(card, margin=1 << 30)
    assert narrow.cost > free.cost
    linear = [sum(term.bytes for term in each.question.plan.weights) for each in (free, narrow)]
    assert linear[0] - linear[1] == pytest.approx(1 << 30, abs=32 * MIB)
    assert _fill(card, head=16).bits[HEAD_SLOT] == 16
    assert _fill(card, head=8).bits[HEAD_SLOT] == 8


def test_the_three_that_read_a_layers_input_have_one_width() -> None:
    filling = _fill(find_card("RTX 3060 12GB", None))
    formats = {weight.module: each for weight, each in filling.question.subject.formats.items()}
    for layer in range(GLM4.num_hidden_layers):
        attention = f"model.layers.{layer}.self_attn."
        assert len({formats[f"{attention}{name}_proj"] for name in "qkv"}) == 1
    assert not formats["model.embed_tokens"].is_quantized


def test_the_same_question_has_the_same_answer() -> None:
    card = find_card(None, "10")
    assert _fill(card).bits == _fill(card).bits


def test_a_card_that_holds_all_in_bf16_gets_it() -> None:
    assert _fill(find_card("RTX 3090", None)).is_whole


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match="does not fit a card: with all layers in INT4"):
        _fill(find_card(None, "5"))
    with pytest.raises(OptionError, match="RX 7900 XTX cannot be filled"):
        _fill(find_card("RX 7900 XTX", None))
    with pytest.raises(OptionError, match="a card must be named"):
        _fill(None)


def test_costs_of_another_model_are_refused() -> None:
    record = alike(Widths(replace(GLM4, num_hidden_layers=39)))
    with pytest.raises(
        ConfigError, match=r"says nothing of model\.layers\.39\.self_attn\.qkv_proj"
    ):
        record.widths(GLM4)
