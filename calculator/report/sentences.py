"""What a person wants to know of an answer, in sentences."""

from calculator.cards.card import Card
from calculator.cards.roofline import (
    DECODE_EFFICIENCY,
    PREFILL_EFFICIENCY,
    SHORT_CONTEXT,
    Band,
    Rates,
    decode_band,
    prefill_band,
    streamed_decode_band,
)
from calculator.model import tensor_parallel
from calculator.questions.question import Question
from calculator.questions.solve import cards_needed, cheapest_change, max_context, verdict
from calculator.units import human_band, human_bytes

WORDS = {
    "fits": "fits, {left} left",
    "tight": "tight, {left} left; in the last GiB drivers may spill, and a desktop wants its part",
    "no": "does not fit, {left} too little",
}


def assumptions(question: Question) -> str:
    """What was assumed, on one line."""
    settings, plan = question.settings, question.plan
    parts = [
        f"context {settings.context:,} tokens, batch {settings.batch}",
        f"prefill chunk {settings.prefill_chunk}",
        f"KV cache {settings.kv} ({plan.kv_bytes_per_token:,} B a token)",
        f"embedding on the {'GPU' if settings.embedding == 'gpu' else 'host'}",
        f"display reserve {human_bytes(settings.display_reserve)}",
        f"margin {human_bytes(settings.margin)}",
    ]
    if plan.bus_bytes_per_token:
        parts.append(f"{plan.bus_bytes_per_token:,} B a token across the bus")
    return f"assumed: {', '.join(parts)}"


def cards_assumptions() -> str:
    """What the table of cards assumes, on one line."""
    return (
        "assumed: prefill chunk 512, the embedding on the host, an INT8 head with INT8 and INT4 "
        "weights, nothing else on the card; the authors' stack along lines between their "
        "measurements, beyond the longest prompt too"
    )


def card_sentences(question: Question) -> list[str]:
    """The verdict on the card, the largest context, speed, the cheapest change, notes."""
    card, margin = question.card, question.margin_bytes
    if card is None or margin is None:
        return []
    word = verdict(margin)
    count = f"{question.gpus} x " if question.gpus != 1 else ""
    lines = [
        f"{count}{card.name} ({human_bytes(card.usable_bytes)} {card.source}): "
        + WORDS[word].format(left=human_bytes(abs(margin))),
        f"largest context: {max_context(question, card.usable_bytes):,} tokens",
    ]
    if word == "no":
        lines.append(_change(question, card.usable_bytes))
    lines += _speed(question, card.rates) if card.rates else ["speed: not known without a card"]
    lines += _several_cards(question, card)
    return [*lines, *(card.gpu.notes if card.gpu else ())]


def _several_cards(question: Question, card: Card) -> list[str]:
    """What cannot be split, and how the checkpoint is served where one card does not do."""
    gpus = question.gpus
    if gpus == 1 and question.need_bytes > card.usable_bytes:
        gpus = cards_needed(question, card.usable_bytes) or 1
    if gpus == 1:
        return []
    settings = question.settings
    serve = (
        f"{gpus} of these cards, with vLLM: vllm serve CHECKPOINT --tensor-parallel-size {gpus} "
        f"--max-model-len {settings.context} --max-num-seqs {settings.batch}"
    )
    return [*tensor_parallel.notes(question.subject.config, gpus), serve]


def _change(question: Question, usable_bytes: int) -> str:
    change = cheapest_change(question, usable_bytes)
    if change is None:
        return "no single change makes it fit"
    return (
        f"cheapest change: {change.words} saves {human_bytes(change.saves_bytes)}: "
        f"{verdict(change.margin_bytes)} ({change.option})"
    )


def _speed(question: Question, rates: Rates) -> list[str]:
    plan, context = question.plan, question.settings.context
    depths = sorted({min(SHORT_CONTEXT, context), context})
    decode = ", ".join(f"{_band(decode_band(plan, rates, depth=at))} at {at:,}" for at in depths)
    prefill = ", ".join(f"{_band(prefill_band(plan, rates, depth=at))} of {at:,}" for at in depths)
    lines = [
        f"decode, tokens/s of each sequence: {decode} ({share(DECODE_EFFICIENCY)} of the "
        "bandwidth on the data sheet)",
        f"prefill, tokens/s: {prefill} ({share(PREFILL_EFFICIENCY)} of its matrix rate)",
    ]
    if question.settings.gpu_layers is None or not plan.device_bytes("host"):
        return lines
    lines[0] += f"; host memory taken at {rates.host_bandwidth / 1e9:.0f} GB/s"
    streamed = streamed_decode_band(plan, rates, depth=context)
    if streamed:
        lines.append(f"sent over the bus instead, decode: {_band(streamed)} at {context:,}")
    return lines


def _band(band: Band) -> str:
    return human_band(band.low, band.high)


def share(efficiency: tuple[float, float]) -> str:
    """What a band of efficiency is, in words."""
    return f"{efficiency[0]:.0%} to {efficiency[1]:.0%}"
