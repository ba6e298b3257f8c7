"""An answer as tables of words, for a terminal and for Markdown alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calculator.cards.card import Card
from calculator.dataclass import dataclass
from calculator.model.architecture import num_parameters
from calculator.questions.answer import recommended
from calculator.questions.question import Question
from calculator.questions.solve import Offer, verdict
from calculator.questions.variants import Choice, Choices
from calculator.report.words import DEVICES, KV, WEIGHTS, band_words
from calculator.units import human_band, human_bytes, human_tokens

if TYPE_CHECKING:
    from calculator.questions.grid import Cell, GridRow
    from calculator.questions.longest import Longest
    from calculator.questions.widths.ladder import Ladder, Rung

MARKS = {"fits": "", "tight": "~", "no": "!"}
"""Marks beside a margin in the grid, so that it reads without colour."""


@dataclass(frozen=True)
class Sheet:
    """A titled table of words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    """Columns of numbers."""
    totals: int = 0
    """How many of the last rows are sums of those before."""
    names: int = 1
    """How many of the first columns name a row; a narrow terminal repeats them."""


def terms_sheet(question: Question) -> Sheet:
    """Every term that takes bytes, and the totals."""
    plan = question.plan
    rows = [
        (term.name, DEVICES[term.device], f"{term.bytes:,}", human_bytes(term.bytes))
        for term in plan.terms
        if term.bytes
    ]
    totals = [
        (f"total {name}", name, f"{total:,}", human_bytes(total))
        for device, name in DEVICES.items()
        if (total := plan.device_bytes(device))
    ]
    parameters = num_parameters(question.subject.config)
    variant = f", {question.subject.variant}" if question.subject.variant else ""
    each = ""
    if question.gpus != 1:
        which = "the fullest" if question.by_layers else "each"
        each = f", {which} of {question.gpus} GPUs"
    return Sheet(
        f"{question.subject.name}: {parameters:,} parameters{variant}{each}",
        ("term", "on", "bytes", "size"),
        (*rows, *totals),
        frozenset({"bytes", "size"}),
        len(totals),
    )


def explain_sheet(question: Question) -> Sheet:
    """Every term, also those of no bytes, with its formula and where its operands come from."""
    rows = [
        (term.name, DEVICES[term.device], f"{term.bytes:,}", term.formula, term.source)
        for term in question.plan.terms
    ]
    columns = ("term", "on", "bytes", "formula", "operands from")
    return Sheet("How each term is computed", columns, tuple(rows), frozenset({"bytes"}))


def moments_sheet(question: Question) -> Sheet:
    """The moments of a step, which share the workspace."""
    rows = [
        (moment.name, f"{moment.bytes:,}", human_bytes(moment.bytes), moment.formula)
        for moment in question.plan.arenas[question.settings.compute].moments
    ]
    return Sheet(
        "These share the workspace, whose size is that of the largest",
        ("moment", "bytes", "size", "formula"),
        tuple(rows),
        frozenset({"bytes", "size"}),
    )


def offers_sheet(offers: tuple[Offer, ...], shown: int = 8) -> Sheet:
    """Cards that hold the plan, smallest first."""
    more = f", {shown} of {len(offers)}" if len(offers) > shown else ""
    return Sheet(
        f"Cards that it fits, smallest first{more}",
        ("card", "verdict", "left", "tokens/s", "power", "launch price"),
        tuple(
            (
                offer.gpu.name,
                verdict(offer.margin_bytes),
                human_bytes(offer.margin_bytes),
                human_band(offer.decode.low, offer.decode.high),
                f"{offer.gpu.tdp_watts} W" if offer.gpu.tdp_watts else "",
                f"${offer.gpu.launch_usd:,} ({offer.gpu.year})" if offer.gpu.launch_usd else "",
            )
            for offer in offers[:shown]
        ),
        frozenset({"left", "tokens/s", "power", "launch price"}),
    )


def choices_sheet(choices: Choices, card: str, *, every: bool = False, shown: int = 8) -> Sheet:
    """The best ways to run on a card; `every` shows all that fit."""
    rows = choices.fitting if every else choices.diverse[:shown]
    total = len(choices.fitting)
    more = "" if len(rows) == total else f", {len(rows)} of {total}; --all shows the others"
    return Sheet(
        f"Variants for {card}, the best first{more}",
        ("weights", "KV", "embedding", "left", "longest context", "tokens/s at first", "when full"),
        tuple(map(_choice_row, rows)),
        frozenset({"left", "longest context", "tokens/s at first", "when full"}),
        names=2,
    )


def _choice_row(choice: Choice) -> tuple[str, ...]:
    return (
        str(choice.question.subject.variant or "as stored"),
        choice.question.settings.kv,
        DEVICES[choice.question.settings.embedding],
        human_bytes(choice.margin_bytes),
        f"{choice.max_context:,}",
        band_words(choice.short),
        band_words(choice.decode),
    )


def recommendations_sheet(question: Question) -> Sheet:
    """The best way to run on one card of each size."""
    numbers = ("longest context", "tokens/s at first", "when full")
    return Sheet(
        f"{question.subject.name}: the best way to run on a card of each size",
        ("memory", "such as", "weights", "KV cache", *numbers),
        tuple(_recommendation_row(card, choice) for card, choice in recommended(question)),
        frozenset({"memory", *numbers}),
        names=2,
    )


def _recommendation_row(card: Card, choice: Choice | None) -> tuple[str, ...]:
    memory = f"{card.gpu.memory_gb} GB" if card.gpu else human_bytes(card.usable_bytes)
    if choice is None:
        return (memory, card.name, "layers on the host", "", "-", "", "")
    variant = choice.question.subject.variant
    return (
        memory,
        card.name,
        WEIGHTS[variant.weights].removesuffix(" weights") if variant else "as stored",
        KV[choice.question.settings.kv],
        f"{choice.max_context:,}",
        band_words(choice.short),
        band_words(choice.decode),
    )


def grid_sheet(question: Question, rows: tuple[GridRow, ...]) -> Sheet:
    """The grid: margins on a card, or needs without one."""
    contexts = tuple(human_tokens(cell.context) for cell in rows[0].cells)
    if question.card:
        title = f"GiB left of {question.card.name}; ~ tight: the last GiB, ! does not fit"
    else:
        title = "GiB needed"
    return Sheet(
        f"{question.subject.name}: {title}",
        ("weights", "KV", *contexts),
        tuple((row.weights, row.kv, *map(grid_cell, row.cells)) for row in rows),
        frozenset(contexts),
        names=2,
    )


def widths_sheet(question: Question, ladder: Ladder) -> Sheet:
    """Cards of some GiB less and more, and the widths that fill each."""
    numbers = ("INT4", "INT8", "bf16", "left", "estimated loss")
    card = question.card.name if question.card else ""
    return Sheet(
        f"{question.subject.name}: matrices of each width that fill {card}, and other cards",
        ("card", *numbers[:3], "head", *numbers[3:]),
        tuple(map(_rung_row, ladder.rungs)),
        frozenset(numbers),
    )


def _rung_row(rung: Rung) -> tuple[str, ...]:
    filling, step = rung.filling, rung.step
    size = human_bytes(filling.question.card.usable_bytes) if filling.question.card else ""
    more = f" ({step:+} GiB)" if step else ""
    head = filling.bits.get("lm_head")
    return (
        f"{size}{more}",
        *(str(rung.matrices[bits]) for bits in (4, 8, 16)),
        "embedding" if head is None else {8: "INT8", 16: "bf16"}[head],
        human_bytes(filling.spare_bytes),
        f"{rung.loss:.2%}",
    )


def cards_sheet(question: Question, longest: Longest) -> Sheet:
    """Variant x card -> longest context."""
    cards = tuple(card.name for card in longest.cards)
    return Sheet(
        f"{question.subject.name}: the longest context, in tokens",
        ("weights and KV cache", *cards),
        tuple(
            (row.name, *(f"{context:,}" if context else "-" for context in row.contexts))
            for row in longest.rows
        ),
        frozenset(cards),
    )


def grid_cell(cell: Cell) -> str:
    """A margin with its mark, or a need."""
    if cell.margin_bytes is None or cell.verdict is None:
        return f"{cell.need_bytes / (1 << 30):.1f}"
    gib = cell.margin_bytes / (1 << 30)
    return f"{MARKS[cell.verdict]}{gib:.{1 if abs(gib) >= 0.1 else 2}f}"
