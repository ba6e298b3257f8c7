"""The longest context of each variant on each card, beside the authors' stack."""

from collections.abc import Iterator
from dataclasses import replace

from calculator.cards.card import card_of
from calculator.cards.gpus import Gpu, find_gpu
from calculator.cards.published import published_context
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.model.presets import PRESETS
from calculator.questions.question import Question
from calculator.questions.solve import kv_choices, max_context
from calculator.questions.subject import Variant

CARDS = ("4060", "3060 12GB", "4070", "4060 Ti 16GB", "3090", "4090", "5090")
"""Cards of 8 to 32 GB that most people own, or think of buying."""

SHOWN_KV = ("bf16", "int8", "int4")
VARIANTS = (
    Variant("bf16"),
    Variant("int8", lm_head="int8"),
    Variant("int4", lm_head="int8"),
)


@dataclass(frozen=True)
class LongestRow:
    """One way to run the model."""

    name: str
    contexts: tuple[int, ...]
    """The longest context on each card; 0 where not one token fits."""


@dataclass(frozen=True)
class Longest:
    """The table."""

    cards: tuple[Gpu, ...]
    rows: tuple[LongestRow, ...]


def longest_contexts(question: Question) -> Longest:
    """Return the table for well-known cards, or for the card of the question.

    The embedding is on the host.
    """
    asked = question.card.gpu if question.card else None
    cards = (asked,) if asked else tuple(find_gpu(name) for name in CARDS)
    rows = list(_ours(question, cards))
    if question.subject.config == PRESETS["glm-4-9b-chat"]:
        rows = [*_published(question, cards), *rows]
    return Longest(cards, tuple(rows))


def _published(question: Question, cards: tuple[Gpu, ...]) -> Iterator[LongestRow]:
    longest = question.subject.config.max_position_embeddings
    for weights in ("bf16", "int4"):
        limits = (published_context(weights, card.reported_bytes) for card in cards)
        yield LongestRow(f"authors, {weights}", tuple(min(context, longest) for context in limits))


def _ours(question: Question, cards: tuple[Gpu, ...]) -> Iterator[LongestRow]:
    for variant in VARIANTS if question.subject.variant else (None,):
        try:
            asked = question.with_variant(variant) if variant else question
        except OptionError:
            continue  # shapes that this format cannot hold
        if not asked.planner.tied:
            asked = asked.with_settings(replace(asked.settings, embedding="host"))
        alone = replace(asked, card=None).with_planner_of(asked)
        for kv in (kv for kv in SHOWN_KV if kv in kv_choices(asked.subject.config)):
            settings = replace(asked.settings, kv=kv, context=1, shared_prefix=0)
            placed = alone.with_settings(settings)
            name = f"{variant.weights if variant else 'as stored'}, {kv} KV"
            yield LongestRow(
                name,
                tuple(max_context(placed, card_of(card).usable_bytes) for card in cards),
            )
