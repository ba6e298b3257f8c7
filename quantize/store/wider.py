"""What a card has room for beside INT4: matrices of more bits, which only `quantize --for` makes.

The one command reads each file of a source once and drops it. Which matrices deserve more bits must
be measured on the whole source first, so it says what is possible instead of making it.
"""

import shlex
from dataclasses import replace

from calculator.cards.card import Card
from calculator.errors import OptionError
from calculator.memory.settings import Device
from calculator.questions.question import Question
from calculator.questions.widths.fill import fill_card
from calculator.questions.widths.sensitivity import alike
from calculator.questions.widths.slots import HEAD_SLOT, Widths
from calculator.units import GIB

LEAST_SHARE = 0.05
"""The share of matrices that must have room for more bits: for fewer it is not worth the time."""


def wider_widths(question: Question, source: str) -> str | None:
    """Say how many matrices of an INT4 run could have more bits, and the command that does it.

    None where that is not worth it, or where no card is filled.
    """
    variant, card, settings = question.subject.variant, question.card, question.settings
    if variant is None or card is None or variant.weights != "int4":
        return None
    if settings.compute == "host" or settings.gpu_layers is not None or settings.batch > 1:
        return None
    config = question.subject.config
    embedding: Device = "gpu" if config.tie_word_embeddings else "host"
    widths = Widths(config, variant.group_size)
    try:
        filled = fill_card(
            question.with_settings(replace(settings, embedding=embedding)),
            widths,
            alike(widths).costs,
        )
    except OptionError:  # what is known of the card is too little
        return None
    layers = [bits for name, bits in filled.bits.items() if name != HEAD_SLOT]
    wider = sum(bits > 4 for bits in layers)
    if wider < LEAST_SHARE * len(layers):
        return None
    command = f"glm4q quantize {shlex.quote(source)} -o DIR {_named(card)}"
    return (
        f"{wider} of {len(layers)} matrices could have more than 4 bits on this card, which loses "
        f"less. Which of them, only the whole source tells: {command} "
        f"--context {settings.context} --kv {settings.kv} fetches all of it, and takes longer"
    )


def _named(card: Card) -> str:
    """Name the card in the options of `glm4q quantize`."""
    words = ["--for" if word == "--gpu" else word for word in card.arguments]
    return shlex.join(words or ["--vram", f"{card.usable_bytes / GIB:.2f}"])
