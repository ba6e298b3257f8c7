"""The first lines of an answer: what runs on the card, and the commands that make and run it."""

from dataclasses import replace

from calculator.cards.roofline import SHORT_CONTEXT
from calculator.dataclass import dataclass
from calculator.questions.answer import (
    Answer,
    answer_cost,
    filling_command,
    is_here,
    making_commands,
    smallest_card,
)
from calculator.questions.question import Question
from calculator.questions.solve import (
    Verdict,
    cards_needed,
    cheapest_change,
    max_context,
    verdict,
)
from calculator.report.words import band_words, card_words, context_words, variant_words
from calculator.units import counted, human_bytes, human_duration

VERDICTS: dict[Verdict, str] = {"fits": "fits", "tight": "tight", "no": "does not fit"}
THEN: dict[Verdict, str] = {"fits": "fits", "tight": "fits, and is tight", "no": "does not fit"}

DESKTOP_BYTES = 1 << 30
"""What a desktop with a browser is assumed to take of a card: public logs show 350 to 1,600 MiB."""

LEAST_SHARE = 0.05
"""The room that INT4 must leave, beside its weights, for `quantize --for` to be worth the time."""


@dataclass(frozen=True)
class Headline:
    """The verdict in one word, the sentence that begins with it, and the lines below."""

    card: str
    verdict: Verdict
    sentence: str
    lines: tuple[str, ...]


def headline(answer: Answer) -> Headline | None:
    """The first lines of the screen; None where no card is named."""
    question = answer.question
    margin = question.margin_bytes
    if question.card is None or margin is None:
        return None
    word = verdict(margin)
    if word == "no":
        return Headline(card_words(question), word, _lacks(question), tuple(_remedies(answer)))
    return Headline(card_words(question), word, _runs(question), tuple(_below(answer)))


def _runs(question: Question) -> str:
    parts = [variant_words(question), context_words(question)]
    layers = question.settings.gpu_layers
    if layers is not None:
        total = question.subject.config.num_hidden_layers
        parts.append(f"{layers} of {total} layers on the GPU and the others on the host")
    parts.append(f"{human_bytes(question.margin_bytes or 0)} left")
    context = question.settings.context
    short = band_words(question.decode(min(SHORT_CONTEXT, context)))
    full = band_words(question.decode(context))
    if short:
        each = " for each user" if question.settings.batch > 1 else ""
        parts.append(f"about {short} tokens/s{each}")
    if full and full != short:
        parts[-1] += f" at first, {full} with a full context"
    return ", ".join(parts)


def _below(answer: Answer) -> list[str]:
    question = answer.question
    lines = [f"make and run it: {' && '.join(making_commands(question))}"]
    cost = answer_cost(question)
    if cost is not None:
        times = [f"{human_duration(*cost.seconds)} on two CPU cores"]
        if cost.card_seconds:
            times.insert(0, f"{human_duration(*cost.card_seconds)} on this card")
        source = "" if is_here(question) else f", {human_bytes(cost.source_bytes)} to download"
        lines.append(
            f"to make it: {' or '.join(times)}, {human_bytes(cost.memory_bytes)} of memory, "
            f"{human_bytes(cost.disk_bytes)} of disk{source}"
        )
    lines += _fills(question)
    if verdict(question.margin_bytes or 0) == "tight":
        lines.append(
            "tight: a driver may move the last GiB of a card to host memory, which is slow; "
            + _with_desktop(question)
        )
    if answer.fixed.context or question.settings.gpu_layers is not None:
        card = question.card
        most = max_context(question, card.usable_bytes) if card else 0
        lines.append(f"largest context of this variant: {counted(most, 'token')}")
    return lines


def _fills(question: Question) -> list[str]:
    """How the room that INT4 leaves is filled, where that is worth the time."""
    command, left = filling_command(question), question.margin_bytes or 0
    if command is None or left < LEAST_SHARE * question.plan.weights_bytes:
        return []
    return [
        f"or fill the card: {human_bytes(left)} are left to give matrices more than 4 bits, those "
        f"first that lose most without: {command}"
    ]


def _with_desktop(question: Question) -> str:
    """How much context is left beside a desktop."""
    settings = question.settings
    if question.card is None or settings.display_reserve >= DESKTOP_BYTES:
        return "close what else uses the card"
    beside = question.with_settings(replace(settings, display_reserve=DESKTOP_BYTES))
    most = min(max_context(beside, question.card.usable_bytes), settings.context)
    words = "no context fits" if not most else f"{counted(most, 'token')} fit"
    return f"with a desktop that takes 1 GiB of the card, {words} (--reserve 1)"


def _lacks(question: Question) -> str:
    card, margin = question.card, question.margin_bytes or 0
    usable = human_bytes(card.usable_bytes) if card else ""
    return (
        f"{variant_words(question)}, {counted(question.settings.context, 'token')} need "
        f"{human_bytes(question.need_bytes)}, {human_bytes(-margin)} too much for {usable}"
    )


def _remedies(answer: Answer) -> list[str]:
    question = answer.question
    card = question.card
    lines = []
    if card is not None:
        change = cheapest_change(question, card.usable_bytes)
        if change is None:
            lines.append("no single change makes it fit")
        else:
            then = THEN[verdict(change.margin_bytes)]
            lines.append(
                f"cheapest change: {change.words} ({change.option}), "
                f"{human_bytes(change.saves_bytes)} less: then it {then}"
            )
        most = max_context(question, card.usable_bytes)
        fits = f"{counted(most, 'token')} would fit" if most else "no context fits"
        lines.append(f"largest context of this variant: {fits}")
    if question.gpus == 1:
        gpu = smallest_card(question)
        if gpu is not None:
            lines.append(f"smallest card that would do: {gpu.name} ({gpu.memory_gb} GB)")
        count = cards_needed(question, card.usable_bytes) if card else None
        if count:
            lines.append(f"{count} such cards would do: --gpus {count}")
    return lines
