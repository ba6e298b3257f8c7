"""One self-contained HTML page that answers every question about the preset models.

web/plan.js computes with the same formulas as calculator/memory. The page holds the configurations
of the models and the list of cards, and needs no network. `glm4q serve` shows the same calculator.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calculator.cards.card import Card, card_of
from calculator.cards.gpus import load_gpus
from calculator.memory.scratch import tile_bytes
from calculator.memory.terms import NAME_OF_PART
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.model.presets import PRESETS
from calculator.options import printable
from calculator.questions.question import Question
from calculator.report.bundle import bundle

WEB = Path(__file__).with_name("web")
FIRST_CARD = "RTX 3060 12GB"
"""The card of a page that was asked for without one."""

CONFIG = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    *("attention_bias", "tie_word_embeddings"),
)
"""Fields of a configuration that plan.js needs."""


def as_page(question: Question) -> str:
    """Return the page, opened at this question."""
    table = json.dumps(page_data(question), separators=(",", ":"))
    page = _read("page.html")
    for place, text in (
        ("__STYLE__", _read("theme.css") + _read("calculator.css")),
        ("__CALCULATOR__", _read("calculator.html")),
        ("__SCRIPT__", bundle(WEB, "page")),
        # Inside a script element only this letter could end it or begin another.
        ("__DATA__", table.replace("<", "\\u003c")),
    ):
        page = page.replace(place, text)
    return page


def _read(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def page_data(question: Question) -> dict[str, Any]:
    """Return the models, the cards, and the question that the page begins with."""
    settings, variant = question.settings, question.subject.variant
    cards = _cards(question)
    shown = question.card.name if question.card else FIRST_CARD
    key, models = _models(question)
    return {
        "models": models,
        "cards": [_card(card) for card in cards],
        "start": {
            "model": key,
            "weights": variant.weights if variant else "as stored",
            "group": variant.group_size if variant else "128",
            "head": variant.lm_head if variant else "as stored",
            "kv": settings.kv,
            "embedding": settings.embedding,
            "context": settings.context,
            "users": settings.batch,
            "prefix": settings.shared_prefix,
            "chunk": settings.prefill_chunk,
            "draft": settings.draft_tokens,
            "reserve": settings.display_reserve + settings.margin,
            "layers": settings.gpu_layers,
            "gpus": question.gpus,
            "others": ", ".join(card.name for card in question.others),
            "split": question.split,
            "card": shown,
        },
    }


def _models(question: Question) -> tuple[str, dict[str, Any]]:
    """The key of the asked model, and all models by their keys."""
    models = {name.lower(): _model(name, name, config) for name, config in PRESETS.items()}
    subject = question.subject
    asked = subject.name.lower()
    if PRESETS.get(subject.name) == subject.config and subject.variant is not None:
        return asked, models
    known = {name.lower(): config for name, config in PRESETS.items()}
    if known.get(asked) == subject.config and subject.variant is not None:
        return asked, models
    argument = printable(question.model or subject.name)
    model = _model(subject.name, argument, subject.config)
    if subject.variant is None:
        model["stored"] = [_stored(*each) for each in subject.formats.items()]
        model["tied"] = question.planner.tied
        if question.measured_loss:
            model["quality"] = f"Of this checkpoint: {question.measured_loss}."
    return "asked", {"asked": model, **models}


def _model(name: str, argument: str, config: ModelConfig) -> dict[str, Any]:
    fields = asdict(config)
    numbers = {field: fields[field] for field in CONFIG} | {"rotary_dim": config.rotary_dim}
    return {"name": name, "argument": argument, "config": numbers}


def _stored(weight: Weight, weight_format: WeightFormat) -> Mapping[str, Any]:
    """A weight of a quantized checkpoint, in the bytes of its own format."""
    quantized = weight_format.is_quantized
    parts = [
        [NAME_OF_PART[part] if quantized else "", size]
        for part, size in weight_format.parts(weight).items()
    ]
    scratch = 0
    if quantized:
        outputs, inputs = weight.shape
        scratch = tile_bytes(outputs, inputs, weight_format.groups(inputs))
    return {"role": weight.role, "layer": weight.layer, "parts": parts, "scratch": scratch}


def _cards(question: Question) -> list[Card]:
    """The asked card, if the list does not have it as it is, and the list."""
    known = [card_of(gpu) for gpu in load_gpus()]
    asked = question.card
    same = {(card.name, card.usable_bytes) for card in known}
    if asked is None or (asked.name, asked.usable_bytes) in same:
        return known
    return [asked, *(card for card in known if card.name != asked.name)]


def _card(card: Card) -> dict[str, Any]:
    gpu, rates = card.gpu, card.rates
    return {
        "name": card.name,
        "bytes": card.usable_bytes,
        "arguments": card.arguments,
        "bandwidth": rates.bandwidth if rates else None,
        "efficiency": rates.efficiency if rates else None,
        "flops": rates.flops if rates else None,
        "host": card.host_bandwidth,
        "watts": gpu.tdp_watts if gpu else None,
        "usd": gpu.launch_usd if gpu else None,
        "year": gpu.year if gpu else None,
        "cuda": gpu.runs_glm4q if gpu else True,
        "notes": gpu.notes if gpu else (),
    }
