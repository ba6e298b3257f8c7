"""Sentences below an answer: assumptions, the speed in detail, what several cards do."""

from math import inf

from calculator.cards.roofline import (
    DECODE_EFFICIENCY,
    HOST_BANDWIDTH,
    PREFILL_EFFICIENCY,
    SHORT_CONTEXT,
    Rates,
    decode_band,
    prefill_band,
    streamed_decode_band,
)
from calculator.errors import OptionError
from calculator.memory.settings import Settings, default_drafts
from calculator.model import tensor_parallel
from calculator.questions.answer import Answer, making_commands
from calculator.questions.question import Question
from calculator.questions.subject import Variant
from calculator.report.words import band_words, variant_words
from calculator.units import counted, human_bytes


def assumptions(question: Question) -> str:
    """Say in one line what was assumed."""
    settings, plan = question.settings, question.plan
    users = f"{settings.batch} users, " if settings.batch > 1 else ""
    parts = [f"{users}context {counted(settings.context, 'token')}"]
    if settings.shared_prefix:
        parts.append(f"of which {settings.shared_prefix:,} are shared")
    parts += [
        f"prefill chunk {settings.prefill_chunk}",
        f"KV cache {settings.kv} ({plan.kv_bytes_per_token:,} B a token)",
        f"embedding on the {'GPU' if settings.embedding == 'gpu' else 'host'}",
        f"{human_bytes(settings.display_reserve)} kept free for other programs (--reserve)",
    ]
    if settings.margin:
        parts.append(f"safety margin {human_bytes(settings.margin)}")
    if settings.draft_tokens != default_drafts(settings.batch):
        parts.append(f"{counted(settings.draft_tokens, 'draft')} a step")
    if plan.bus_bytes_per_token:
        parts.append(f"{plan.bus_bytes_per_token:,} B a token across the bus")
    return f"assumed: {', '.join(parts)}"


def cards_assumptions() -> str:
    """Say in one line what the table of cards assumes."""
    return (
        "assumed: prefill chunk 512, the embedding on the host, an INT8 head with INT8 and INT4 "
        "weights, 256 MiB kept free for other programs; the authors' stack along lines between "
        "their measurements, beyond the longest prompt too"
    )


def recommended_assumptions() -> str:
    """Say in one line what the recommendations assume."""
    return (
        "assumed: groups of 128, an INT8 head, prefill chunk 512, 256 MiB kept free for other "
        f"programs, {share(DECODE_EFFICIENCY)} of the bandwidth on the data sheet; the embedding "
        "is on the host where it would leave less than 1 GiB of the card"
    )


def without_a_card(question: Question) -> str | None:
    """Say what the CPU alone runs, and how; None where the shapes do not allow INT4."""
    settings = Settings(kv="int8", embedding="host", compute="host")
    try:
        subject = question.subject
        if subject.variant is not None:
            subject = subject.with_variant(Variant("int4", "128", "int8"))
        hosted = Question(subject, settings, model=question.model)
        plan = hosted.plan
    except OptionError:
        return None
    band = decode_band(plan, Rates(1.0, inf), depth=SHORT_CONTEXT)
    return (
        f"no card: the CPU runs {variant_words(hosted)}, {counted(settings.context, 'token')}, in "
        f"{human_bytes(plan.device_bytes('host'))} of memory, about {band_words(band)} tokens/s at "
        f"{HOST_BANDWIDTH / 1e9:.0f} GB/s: {' && '.join(making_commands(hosted))}"
    )


def details(answer: Answer) -> list[str]:
    """Speed, several cards, and notes on the card."""
    question = answer.question
    card = question.card
    measured = [str(question.measured_loss)] if question.measured_loss else []
    if card is None:
        return measured
    lines = [*measured, f"{card.name}: {human_bytes(card.usable_bytes)} {card.source}"]
    lines += _speed(question, card.rates) if card.rates else ["speed: not known without a card"]
    lines += _several_cards(answer)
    return [*lines, *(card.gpu.notes if card.gpu else ())]


def _several_cards(answer: Answer) -> list[str]:
    question = answer.question
    if question.gpus == 1:
        return []
    # Each smaller group fails for the same reason as the first: one line is enough.
    left_out = answer.choices.left_out[:1]
    if question.by_layers:
        return [
            *(
                f"{share.card.name}: layers {share.layers.start} to {share.layers.stop - 1}, "
                f"{human_bytes(share.plan.compute_bytes)}, {human_bytes(share.margin_bytes)} left"
                for share in question.shares
            ),
            "the cards run their layers one after another; glm4q itself runs on one card, vLLM "
            "on several",
        ]
    return [
        *tensor_parallel.notes(question.subject.config, question.gpus),
        *left_out,
        "the speed counts no communication between the cards",
        "glm4q itself runs on one card, vLLM on several",
    ]


def _speed(question: Question, rates: Rates) -> list[str]:
    plan, context = question.plan, question.settings.context
    depths = sorted({min(SHORT_CONTEXT, context), context})
    decode = ", ".join(f"{band_words(question.decode(at))} at {at:,}" for at in depths)
    lines = [
        f"decode, tokens/s of each sequence: {decode} ({share(rates.efficiency)} of "
        f"{_bandwidth_words(rates)})"
    ]
    if question.settings.gpu_layers is not None and plan.device_bytes("host"):
        lines[0] += f"; host memory taken at {rates.host_bandwidth / 1e9:.0f} GB/s"
    if not question.by_layers:
        prefill = ", ".join(
            f"{band_words(prefill_band(plan, rates, depth=at))} of {at:,}" for at in depths
        )
        lines.append(
            f"prefill, tokens/s: {prefill} ({share(PREFILL_EFFICIENCY)} of its matrix rate)"
        )
    if question.settings.gpu_layers is not None and plan.device_bytes("host"):
        streamed = streamed_decode_band(plan, rates, depth=context)
        if streamed:
            speed = band_words(streamed)
            lines.append(f"decode if the bus carried the host's layers: {speed} at {context:,}")
    return lines


def _bandwidth_words(rates: Rates) -> str:
    if rates.measured is None:
        return "the bandwidth on the data sheet"
    return (
        f"the {rates.bandwidth / 1e9:.0f} GB/s at which it copies, as products of one token were "
        f"measured on {rates.measured}"
    )


def share(efficiency: tuple[float, float]) -> str:
    """A band of efficiency in words."""
    return f"{efficiency[0]:.0%} to {efficiency[1]:.0%}"
