"""One self-contained HTML page of every variant, context and card, from a table of the plan.

The page looks up and subtracts; it knows no formula of memory.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.cards.card import Card, card_of, gpu_rates
from calculator.cards.gpus import load_gpus
from calculator.cards.roofline import DECODE_EFFICIENCY, decode_band
from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device
from calculator.questions.grid import grid_contexts, grid_variants
from calculator.questions.question import Question
from calculator.questions.solve import TIGHT_BYTES, kv_choices
from calculator.questions.subject import HEADS
from calculator.report.sentences import assumptions, share

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "__DATA__"
FIRST_CARD = "RTX 3060 12GB"
"""Shown where none was asked for."""

PLACEMENTS: tuple[Device, ...] = ("gpu", "host")


def as_page(question: Question) -> str:
    """The page, opened at the question that was asked."""
    data = json.dumps(page_data(question), separators=(",", ":"))
    # Inside a script element only these could end it or begin another.
    return TEMPLATE.read_text(encoding="utf-8").replace(PLACE, data.replace("<", "\\u003c"))


def page_data(question: Question) -> dict[str, Any]:
    """The table: for each variant and context the bytes of each term, and speed on each card."""
    cards = _cards(question)
    contexts = grid_contexts(question.subject.config.max_position_embeddings)
    settings, variant = question.settings, question.subject.variant
    start = next((at for at, size in enumerate(contexts) if size >= settings.context), -1)
    shown = question.card.name if question.card else FIRST_CARD
    return {
        "model": question.subject.name,
        "command": question.command(),
        "assumed": assumptions(question),
        "tight": TIGHT_BYTES,
        "share": share(DECODE_EFFICIENCY),
        "contexts": contexts,
        "start": {
            "context": start % len(contexts),
            "weights": variant.weights if variant else "as stored",
            "head": variant.lm_head if variant else "as stored",
            "embedding": settings.embedding,
            "kv": settings.kv,
            "card": next(at for at, card in enumerate(cards) if card.name == shown),
        },
        "cards": [_card(card) for card in cards],
        "variants": {
            "|".join((weights, head, embedding, kv)): [
                _cell(_at(placed, kv, context), cards) for context in contexts
            ]
            for weights, head, embedding, placed in _placed(question)
            for kv in kv_choices(question.subject.config)
        },
    }


def _cards(question: Question) -> list[Card]:
    """The asked card, if it is none of the list's, and all of the list."""
    known = [card_of(gpu) for gpu in load_gpus()]
    asked = question.card
    return known if asked is None or asked in known else [asked, *known]


def _card(card: Card) -> dict[str, Any]:
    gpu = card.gpu
    return {
        "name": card.name,
        "bytes": card.usable_bytes,
        "watts": gpu.tdp_watts if gpu else None,
        "usd": gpu.launch_usd if gpu else None,
        "year": gpu.year if gpu else None,
        "notes": gpu.notes if gpu else (),
    }


def _placed(question: Question) -> list[tuple[str, str, Device, Question]]:
    """Every combination of weights, head and embedding that the model's shapes allow."""
    found = []
    for weights, variant in grid_variants(question):
        for head, headed in _heads(variant):
            for embedding in PLACEMENTS:
                if embedding == "gpu" or not headed.planner.tied:
                    settings = replace(question.settings, embedding=embedding)
                    found.append((weights, head, embedding, headed.with_settings(settings)))
    return found


def _heads(question: Question) -> list[tuple[str, Question]]:
    variant = question.subject.variant
    if variant is None:
        return [("as stored", question)]
    found = []
    for head in HEADS:
        try:
            found.append((head, question.with_variant(replace(variant, lm_head=head))))
        except OptionError:
            continue  # a vocabulary or group that INT8 cannot hold
    return found


def _at(question: Question, kv: str, context: int) -> MemoryPlan:
    return question.planner.plan(replace(question.settings, kv=kv, context=context))


def _cell(plan: MemoryPlan, cards: list[Card]) -> dict[str, Any]:
    """Terms as [name, device, bytes]; speed in tenths of a token a second, low and high by card."""
    depth = plan.settings.context
    bands = [
        decode_band(plan, gpu_rates(card.gpu), depth=depth) if card.gpu else None for card in cards
    ]
    return {
        "terms": [[term.name, term.device, term.bytes] for term in plan.terms if term.bytes],
        "gpu": plan.device_bytes("gpu"),
        "host": plan.device_bytes("host"),
        "speed": [
            round(10 * speed)
            for band in bands
            for speed in ((band.low, band.high) if band else (0, 0))
        ],
    }
