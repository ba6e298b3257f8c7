"""The best ways to run a model on a card: every combination of what the user left open, ranked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from calculator.cards.card import Card
from calculator.cards.roofline import SHORT_CONTEXT, Band
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.model.formats import GROUP_SIZES
from calculator.questions.question import Question
from calculator.questions.solve import (
    TIGHT_BYTES,
    kv_bits,
    kv_choices,
    max_context,
    max_gpu_layers,
)
from calculator.questions.subject import Variant

CONVERSATION = 8192
"""A conversation needs about this many tokens; a shorter context justifies a coarser cache."""

NEAR_LOSSLESS_KV_BITS = 16
"""A cache of INT8 keys and values loses next to nothing (docs/kv-cache.md)."""

NEAR_LOSSLESS_BITS = 8
"""INT8 weights lose next to nothing (benchmarks/RESULTS.md)."""

COMBINATIONS = (
    *((weights, head) for weights in ("bf16", "int8", "int4") for head in ("bf16", "int8")),
    ("llm-int8", "bf16"),
    ("nf4", "bf16"),
)
"""Weights and heads that exist together."""


@dataclass(frozen=True)
class Fixed:
    """Which parts of a question the user gave. The others are open."""

    weights: bool = False
    group_size: bool = False
    lm_head: bool = False
    kv: bool = False
    embedding: bool = False
    context: bool = False


@dataclass(frozen=True)
class Choice:
    """One way to run the model on the card."""

    question: Question
    max_context: int
    """The longest context of this variant on the card."""
    decode: Band | None
    """Speed with a full context."""
    short: Band | None
    """Speed at the beginning of a conversation."""

    @property
    def longest(self) -> int:
        """The longest context of the model."""
        return self.question.subject.config.max_position_embeddings

    @property
    def margin_bytes(self) -> int:
        """What the card has left."""
        margin = self.question.margin_bytes
        return 0 if margin is None else margin


@dataclass(frozen=True)
class Choices:
    """All ways that fit, the best first, and what was left out."""

    fitting: tuple[Choice, ...] = ()
    left_out: tuple[str, ...] = ()
    """Why some variants cannot be divided among several cards."""

    @property
    def diverse(self) -> tuple[Choice, ...]:
        """The ways that no better one beats in bits, context and speed at once."""
        shown: list[Choice] = []
        for choice in self.fitting:
            if not any(_beats(better, choice) for better in shown):
                shown.append(choice)
        return tuple(shown)


def find_choices(question: Question, fixed: Fixed) -> Choices:
    """Try every combination of what is open. The question must name a card."""
    card = question.card
    if card is None:
        return Choices()
    choices: list[Choice] = []
    left_out: list[str] = []
    for variant in _variants(question, fixed, left_out):
        for kv in (question.settings.kv,) if fixed.kv else kv_choices(question.subject.config):
            asked = variant.with_settings(replace(variant.settings, kv=kv))
            choice = _choice(asked, fixed, card.usable_bytes)
            if choice is not None:
                choices.append(choice)
    choices.sort(key=rank, reverse=True)
    return Choices(tuple(choices), tuple(dict.fromkeys(left_out)))


def best_by_card(question: Question, cards: Sequence[Card]) -> tuple[Choice | None, ...]:
    """Return the best way on each card, None where none fits.

    Only what can come first is tried: INT8 and INT4 weights with an INT8 head and a quantized
    cache. The weights are listed once for all cards.
    """
    asked = question.subject.variant
    variants = [question]
    if asked is not None:
        variants = [
            variant
            for weights in ("int8", "int4")
            for variant in _divisible(
                question, replace(asked, weights=weights, lm_head="int8"), Fixed(), []
            )
        ]
    kvs = [kv for kv in kv_choices(question.subject.config) if kv != "bf16"] or ["bf16"]
    return tuple(_best_on(card, variants, kvs) for card in cards)


def _best_on(card: Card, variants: list[Question], kvs: list[str]) -> Choice | None:
    """Try coarser caches only where the finest holds no conversation: it would come first."""
    choices: list[Choice] = []
    for kv in kvs:
        for variant in variants:
            asked = replace(variant, card=card).with_planner_of(variant)
            placed = asked.with_settings(replace(asked.settings, kv=kv))
            choice = _choice(placed, Fixed(), card.usable_bytes)
            if choice is not None:
                choices.append(choice)
                if choice.max_context == choice.longest and choice.margin_bytes >= TIGHT_BYTES:
                    break  # finer weights with the whole context and room to spare come first
        if any(choice.max_context >= min(CONVERSATION, choice.longest) for choice in choices):
            break
    return max(choices, key=rank, default=None)


def with_host_layers(question: Question, fixed: Fixed) -> Question | None:
    """Return the smallest variant with as many layers on the GPU as fit, the rest on the host."""
    card = question.card
    if card is None or question.gpus > 1 or question.settings.gpu_layers is not None:
        return None
    placed = smallest_variant(question, fixed)
    layers = max_gpu_layers(placed, card.usable_bytes)
    if layers is None or layers == 0:
        return None
    return placed.with_settings(replace(placed.settings, gpu_layers=layers))


def smallest_variant(question: Question, fixed: Fixed) -> Question:
    """Return the variant of the fewest bytes, with a context to talk in unless one is fixed."""
    settings = question.settings
    longest = question.subject.config.max_position_embeddings
    context = settings.context if fixed.context else min(CONVERSATION, longest)
    *_, coarsest = kv_choices(question.subject.config)
    kv = settings.kv if fixed.kv else "int8" if coarsest != "bf16" else "bf16"
    smallest = min(
        _variants(question, fixed, []), key=lambda each: each.plan.weights_bytes, default=question
    )
    return smallest.with_settings(
        replace(
            settings,
            context=context,
            kv=kv,
            embedding=settings.embedding if fixed.embedding or smallest.planner.tied else "host",
        )
    )


def _variants(question: Question, fixed: Fixed, left_out: list[str]) -> Iterator[Question]:
    """Yield the model in every open combination of weights, head and group size."""
    asked = question.subject.variant
    if asked is None:
        question.planner  # noqa: B018 - refuses what cannot be divided among the cards
        yield question
        return
    for weights, head in COMBINATIONS:
        if fixed.weights and weights != asked.weights:
            continue
        if fixed.lm_head and head != asked.lm_head:
            continue
        variant = replace(asked, weights=weights, lm_head=head)
        yield from _divisible(question, variant, fixed, left_out)


def _divisible(
    question: Question, variant: Variant, fixed: Fixed, left_out: list[str]
) -> Iterator[Question]:
    """Yield the variant, with smaller groups where the model or the cards cannot divide its own."""
    by_groups = "int8" in (variant.weights, variant.lm_head) or variant.weights == "int4"
    sizes = [variant.group_size]
    if not fixed.group_size and by_groups:
        sizes = [*map(str, reversed(GROUP_SIZES)), "channel"]
    for size in sizes:
        try:
            regrouped = question.with_variant(replace(variant, group_size=size))
            regrouped.planner  # noqa: B018 - refuses what cannot be divided among the cards
        except OptionError as error:
            left_out.append(f"{variant} is left out: {error}" if len(sizes) == 1 else str(error))
            continue
        yield regrouped
        return


def _choice(question: Question, fixed: Fixed, usable_bytes: int) -> Choice | None:
    """Return the way with the embedding where it leaves most room for the context, if it fits."""
    settings = question.settings
    longest = question.subject.config.max_position_embeddings
    wanted = settings.context if fixed.context else longest
    places = [settings.embedding]
    if not fixed.embedding:
        places = ["gpu"] if question.planner.tied or settings.compute == "host" else ["gpu", "host"]
    least = wanted if fixed.context else min(SHORT_CONTEXT, longest)
    best: Choice | None = None
    for embedding in places:
        if best is not None and not _may_be_roomier(best, wanted):
            break
        asked = question.with_settings(replace(settings, embedding=embedding, context=least))
        if asked.need_bytes > usable_bytes:
            continue
        placed = asked.with_settings(replace(asked.settings, context=wanted))
        if placed.need_bytes > usable_bytes:
            most = max_context(asked, usable_bytes)
            placed = asked.with_settings(replace(asked.settings, context=most))
        if best is None or _is_roomier(placed, best):
            context = placed.settings.context
            best = Choice(
                placed,
                max_context(placed, usable_bytes) if fixed.context else context,
                placed.decode(context),
                placed.decode(min(SHORT_CONTEXT, context)),
            )
    return best


def _may_be_roomier(best: Choice, wanted: int) -> bool:
    """Whether the embedding on the host could be better, before it is planned."""
    return best.question.settings.context < wanted or best.margin_bytes < TIGHT_BYTES


def _is_roomier(placed: Question, best: Choice) -> bool:
    """Whether the embedding on the host gains context, or leaves the last GiB of the card free."""
    if placed.settings.context > best.question.settings.context:
        return True
    return best.margin_bytes < TIGHT_BYTES


def rank(choice: Choice) -> tuple[float, ...]:
    """Order ways to run: the largest is the best.

    An INT8 cache comes before coarser ones where it holds a conversation; then the longest context;
    then a card with a GiB to spare; then INT8 weights; then speed, and bits where speeds are alike.
    """
    settings = choice.question.settings
    context = settings.context
    talks = context >= min(CONVERSATION, choice.question.subject.config.max_position_embeddings)
    fine_cache = kv_bits(settings.kv) >= NEAR_LOSSLESS_KV_BITS
    bits = quality_bits(choice.question)
    return (
        talks,
        fine_cache if talks else 0,
        context,
        choice.margin_bytes >= TIGHT_BYTES,
        bits[0] >= NEAR_LOSSLESS_BITS,
        *([] if fine_cache else [bits[1]]),
        round(choice.short.high if choice.short else 0.0, 1),
        *bits,
    )


def quality_bits(question: Question) -> tuple[int, int, int, int]:
    """Return the bits of the weights, of the cache and of the head, and 1 for our own formats."""
    formats = {
        weight.role: weight_format for weight, weight_format in question.subject.formats.items()
    }
    linear, head = formats["linear"], formats.get("head", formats["embedding"])
    return linear.bits, kv_bits(question.settings.kv), head.bits, int(linear.scheme == "groups")


def _beats(better: Choice, choice: Choice) -> bool:
    """Whether the better-ranked choice has at least the bits, the context and the speed."""
    if any(one < other for one, other in zip(_traits(better), _traits(choice), strict=True)):
        return False
    speed, other = better.decode, choice.decode
    return not (speed and other) or speed.high >= other.high


def _traits(choice: Choice) -> Iterable[int]:
    linear, cache, head, _ = quality_bits(choice.question)
    return linear, cache, head, choice.max_context
