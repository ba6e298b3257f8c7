"""Every combination of weights, cache and context on one card, with its margin."""

from collections.abc import Iterator
from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.questions.question import Question
from calculator.questions.solve import Verdict, kv_choices, verdict

GRID_WEIGHTS = ("bf16", "int8", "int4", "llm-int8", "nf4")


@dataclass(frozen=True)
class Cell:
    """One combination."""

    context: int
    need_bytes: int
    margin_bytes: int | None
    """None without a card."""

    @property
    def verdict(self) -> Verdict | None:
        return None if self.margin_bytes is None else verdict(self.margin_bytes)


@dataclass(frozen=True)
class GridRow:
    """One variant and KV format, over all contexts."""

    weights: str
    kv: str
    cells: tuple[Cell, ...]


def grid_contexts(longest: int) -> tuple[int, ...]:
    """Return 1K, 2K, 4K ... up to the model's own limit, at most 128K."""
    powers = [1 << power for power in range(10, 18) if 1 << power <= longest]
    return tuple(powers) or (longest,)


def make_grid(question: Question) -> tuple[GridRow, ...]:
    """Return all rows, finest weights first. A quantized checkpoint has only its own formats."""
    return tuple(
        GridRow(str(weights), kv, tuple(_cells(variant, kv)))
        for weights, variant in grid_variants(question)
        for kv in kv_choices(question.subject.config)
    )


def grid_variants(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield each kind of weights that the shapes allow, and the question in that kind."""
    asked = question.subject.variant
    if asked is None:
        yield "as stored", question
        return
    for weights in GRID_WEIGHTS:
        try:
            yield weights, question.with_variant(replace(asked, weights=weights))
        except OptionError:
            continue  # the group size does not divide this model's shapes


def _cells(question: Question, kv: str) -> Iterator[Cell]:
    for context in grid_contexts(question.subject.config.max_position_embeddings):
        settings = replace(question.settings, kv=kv, context=context)
        asked = question.with_settings(settings)
        yield Cell(context, asked.need_bytes, asked.margin_bytes)
