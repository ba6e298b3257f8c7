"""The question with which the page's calculator begins: the run of this server."""

from dataclasses import replace

from calculator.cards.card import Card
from calculator.model.formats import KV_FORMATS
from calculator.questions.question import Question

PAGE_KV = tuple(kv for kv in KV_FORMATS if kv != "fp32")
"""What the calculator of the page asks about; a run on a CPU may have a cache of float32 too."""


def first_question(run: Question, card: Card | None) -> Question:
    """Ask about this run on its card; where the host computes, on a usual card."""
    settings = run.settings
    if settings.compute == "host":
        kv = settings.kv if settings.kv in PAGE_KV else "bf16"
        settings = replace(settings, compute="gpu", embedding="gpu", kv=kv, activation_bits=16)
    return replace(run, settings=settings, card=card)
