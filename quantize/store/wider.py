"""What a card has room for beside INT4: matrices of more bits, which only `quantize --for` makes.

The one command reads each file of a source once and drops it. Which matrices deserve more bits must
be measured on the whole source first, so it says what is possible instead of making it.
"""

import shlex
from dataclasses import replace

from calculator.errors import OptionError
from calculator.memory.settings import Device
from calculator.questions.answer import filling_command
from calculator.questions.question import Question
from calculator.questions.widths.fill import fill_card
from calculator.questions.widths.sensitivity import alike
from calculator.questions.widths.slots import HEAD_SLOT, Widths

LEAST_SHARE = 0.05
"""The share of matrices that must have room for more bits: for fewer it is not worth the time."""


def wider_widths(question: Question, source: str) -> str | None:
    """Say how many matrices of an INT4 run could have more bits, and the command that does it.

    None where that is not worth it, or where no card is filled.
    """
    variant, command = question.subject.variant, filling_command(question, shlex.quote(source))
    if variant is None or command is None:
        return None
    config = question.subject.config
    embedding: Device = "gpu" if config.tie_word_embeddings else "host"
    widths = Widths(config, variant.group_size)
    try:
        filled = fill_card(
            question.with_settings(replace(question.settings, embedding=embedding)),
            widths,
            alike(widths).costs,
        )
    except OptionError:  # what is known of the card is too little
        return None
    layers = [bits for name, bits in filled.bits.items() if name != HEAD_SLOT]
    wider = sum(bits > 4 for bits in layers)
    if wider < LEAST_SHARE * len(layers):
        return None
    return (
        f"{wider} of {len(layers)} matrices could have more than 4 bits on this card, which loses "
        f"less. Which of them, only the whole source tells: {command} fetches all of it, and takes "
        "longer"
    )
