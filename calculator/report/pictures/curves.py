"""Curves of memory over context, one for each kind of weights, and the card's limit."""

from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.questions.grid import grid_contexts, grid_variants
from calculator.questions.question import Question

STEPS_PER_DOUBLING = 4


@dataclass(frozen=True)
class Curve:
    """Bytes needed at each context."""

    name: str
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """All curves of a question, over the same contexts."""

    title: str
    contexts: tuple[int, ...]
    curves: tuple[Curve, ...]
    limit: int | None
    """Bytes of the card."""
    limit_name: str

    @property
    def top(self) -> int:
        """The most bytes shown."""
        return max(self.limit or 0, *(max(curve.bytes) for curve in self.curves))


def make_curves(question: Question) -> Curves:
    """Curves over contexts that grow by a fourth of a doubling."""
    ends = grid_contexts(question.subject.config.max_position_embeddings)
    steps = STEPS_PER_DOUBLING * (len(ends) - 1)
    contexts = tuple(round(ends[0] * 2 ** (step / STEPS_PER_DOUBLING)) for step in range(steps + 1))
    curves = tuple(
        Curve(name, tuple(_need(variant, context) for context in contexts))
        for name, variant in grid_variants(question)
    )
    card = question.card
    return Curves(
        f"{question.subject.name}: GPU memory over context, {question.settings.kv} KV cache",
        contexts,
        curves,
        card.usable_bytes if card else None,
        card.name if card else "",
    )


def _need(question: Question, context: int) -> int:
    return question.with_settings(replace(question.settings, context=context)).need_bytes
