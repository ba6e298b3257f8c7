"""Choose the width of each matrix so that the plan fills a card: weights, cache, workspace, all."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.errors import DoesNotFitError, OptionError
from calculator.model.formats import BF16
from calculator.questions.question import Question
from calculator.questions.widths.knapsack import Level, choose_levels
from calculator.questions.widths.slots import HEAD_SLOT, Bits, Costs, Widths
from calculator.units import human_bytes

ROUNDS = 8
"""Budgets tried at most: what the allocator takes beside the weights depends on their widths."""
SLACK = 64 << 20
"""A wider matrix may take so much less of the allocator's segments than the sum of bytes says."""

Need = Callable[[Sequence[int]], int]
"""The bytes of a plan for a choice of levels."""


@dataclass(frozen=True)
class Filling:
    """A model whose matrices have the widths that fill a card."""

    question: Question
    widths: Widths
    bits: Bits
    cost: float
    """The sum of what the slots cost."""
    narrowest_cost: float
    """The cost of the narrowest widths of all slots."""

    @property
    def spare_bytes(self) -> int:
        """What stays free beside the margin and the reserve."""
        return self.question.margin_bytes or 0

    @property
    def is_whole(self) -> bool:
        """Whether the card holds the model unquantized."""
        return set(self.bits.values()) == {BF16.bits}


def fill_card(question: Question, widths: Widths, costs: Costs, head: int | None = None) -> Filling:
    """Choose the widths of least cost with which the question's plan fits its card.

    head: bits of the head, where they are not to be chosen. Raises DoesNotFitError where the
    narrowest widths do not fit, and OptionError.
    """
    card = question.card
    if card is None:
        raise OptionError("a card must be named that is to be filled")
    if card.gpu is not None and not card.gpu.runs_glm4q:
        raise OptionError(
            f"{card.name} cannot be filled: the plan counts the bytes of glm4q's own kernels; "
            + card.gpu.notes[-1]
        )
    slots = widths.slots
    places = [
        [bits for bits in slot.bits if head in (None, bits) or slot.name != HEAD_SLOT]
        for slot in slots
    ]
    items = [
        [
            level
            for level, bits in zip(widths.levels(slot, costs), slot.bits, strict=True)
            if bits in kept
        ]
        for slot, kept in zip(slots, places, strict=True)
    ]

    def bits_of(levels: Sequence[int]) -> dict[str, int]:
        return {
            slot.name: kept[level] for slot, kept, level in zip(slots, places, levels, strict=True)
        }

    def asked(levels: Sequence[int]) -> Question:
        formats = widths.formats(bits_of(levels))
        subject = replace(question.subject, formats=formats, variant=None, served=None)
        return replace(question, subject=subject)

    narrowest = [0] * len(items)
    lack = asked(narrowest).need_bytes - card.usable_bytes
    if lack > 0:
        raise DoesNotFitError(
            f"{question.subject.name} does not fit {card.name}: with all layers in INT4 "
            f"{human_bytes(lack)} are lacking"
        )
    chosen = _fill(items, card.usable_bytes, lambda levels: asked(levels).need_bytes)
    return Filling(
        asked(chosen), widths, bits_of(chosen), _cost(items, chosen), _cost(items, narrowest)
    )


def _fill(items: Sequence[Sequence[Level]], usable: int, need: Need) -> list[int]:
    """Choose levels for the linear part of the plan, and mend the choice by the whole plan."""
    chosen = [0] * len(items)
    budget = usable - need(chosen) + _bytes(items, chosen)
    for _ in range(ROUNDS):
        levels = choose_levels(items, budget)
        if levels is None:
            break
        over = need(levels) - usable
        if over <= 0:
            chosen = list(levels)
            break
        budget -= over
    return _raise_while_it_fits(items, chosen, usable, need)


def _raise_while_it_fits(
    items: Sequence[Sequence[Level]], chosen: list[int], usable: int, need: Need
) -> list[int]:
    """Raise one item after another where the whole plan has room, the densest gain first."""
    while True:
        spare = usable - need(chosen)
        raised = sorted(
            (
                ((now.cost - level.cost) / max(level.bytes - now.bytes, 1), item, place)
                for item, levels in enumerate(items)
                for now in (levels[chosen[item]],)
                for place, level in enumerate(levels)
                if level.cost < now.cost and level.bytes - now.bytes <= spare + SLACK
            ),
            key=lambda step: (-step[0], step[1:]),
        )
        for _, item, place in raised:
            longer = [*chosen]
            longer[item] = place
            if need(longer) <= usable:
                chosen = longer
                break
        else:
            return chosen


def _bytes(items: Sequence[Sequence[Level]], chosen: Sequence[int]) -> int:
    return sum(levels[place].bytes for levels, place in zip(items, chosen, strict=True))


def _cost(items: Sequence[Sequence[Level]], chosen: Sequence[int]) -> float:
    return sum(levels[place].cost for levels, place in zip(items, chosen, strict=True))
