"""Inverse questions: the largest context, the smallest card, the cheapest change, the best variant.

All of them ask the plan itself, which never shrinks when more is asked, and search.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from calculator.cards.card import gpu_rates
from calculator.cards.gpus import Gpu, load_gpus
from calculator.cards.roofline import Band, decode_band
from calculator.errors import OptionError
from calculator.model.config import ModelConfig
from calculator.model.formats import KV_FORMATS, refuse_unfit_kv
from calculator.questions.question import Question
from calculator.questions.subject import Variant

Verdict = Literal["fits", "tight", "no"]

TIGHT_BYTES = 1 << 30
"""In the last GiB of a card drivers start to spill into host memory, and a desktop wants room."""

USEFUL_CONTEXT = 1024
"""A context shorter than this is no way to make a model fit."""

SMALL_CHUNK = 128
KV_CHOICES = ("bf16", "int8", "k8v4", "int4")


def kv_choices(config: ModelConfig) -> tuple[str, ...]:
    """The KV formats that the model's heads can be cached in, finest first."""
    found = []
    for kv in KV_CHOICES:
        with suppress(OptionError):
            refuse_unfit_kv(kv, config.head_dim)
            found.append(kv)
    return tuple(found)


@dataclass(frozen=True)
class Change:
    """One thing done otherwise, and what it saves on the GPU."""

    words: str
    option: str
    saves_bytes: int
    margin_bytes: int


@dataclass(frozen=True)
class Offer:
    """A card that holds the plan."""

    gpu: Gpu
    margin_bytes: int
    decode: Band
    """At the asked context."""


@dataclass(frozen=True)
class Choice:
    """A variant that the card holds, with the context and speed that it allows."""

    question: Question
    max_context: int
    decode: Band | None


def verdict(margin_bytes: int) -> Verdict:
    """What a margin means for a person."""
    if margin_bytes < 0:
        return "no"
    return "fits" if margin_bytes >= TIGHT_BYTES else "tight"


def max_context(question: Question, usable_bytes: int) -> int:
    """The most tokens of context that fit into these bytes of a card; 0 where not one does."""

    def need(context: int) -> int:
        settings = replace(question.settings, context=context)
        return question.planner.plan(settings).compute_bytes

    contexts = range(1, question.subject.config.max_position_embeddings + 1)
    return bisect_right(contexts, usable_bytes, key=need)


def max_gpu_layers(question: Question, usable_bytes: int) -> int | None:
    """The most layers on the GPU that fit, the rest on the host; None where not even 0 do."""

    def need(layers: int) -> int:
        settings = replace(question.settings, gpu_layers=layers)
        return question.planner.plan(settings).device_bytes("gpu")

    fitting = bisect_right(
        range(question.subject.config.num_hidden_layers + 1), usable_bytes, key=need
    )
    return fitting - 1 if fitting else None


def cards_needed(question: Question, usable_bytes: int) -> int | None:
    """Of how many such cards, 2 to 8, each holds its part; None where no split does."""
    for gpus in (2, 4, 8):
        try:
            need = replace(question, gpus=gpus).need_bytes
        except OptionError:
            continue  # these shapes or groups cannot be split so
        if need <= usable_bytes:
            return gpus
    return None


def cards_that_fit(question: Question) -> tuple[Offer, ...]:
    """Cards of gpus.toml that hold the plan, smallest and then cheapest to run first."""
    need, plan = question.need_bytes, question.plan
    fitting = [gpu for gpu in load_gpus() if gpu.reported_bytes >= need]
    fitting.sort(key=lambda gpu: (gpu.reported_bytes, gpu.tdp_watts or 0, gpu.name))
    return tuple(
        Offer(
            gpu,
            gpu.reported_bytes - need,
            decode_band(plan, gpu_rates(gpu), depth=plan.settings.context),
        )
        for gpu in fitting
    )


def cheapest_change(question: Question, usable_bytes: int) -> Change | None:
    """Of the single changes that make it fit, the one that takes the fewest bytes away.

    Where none does, a shorter context, and then layers on the host.
    """
    fitting = [
        change
        for words, option, changed in _changes(question)
        if (change := _measured(question, changed, words, option, usable_bytes)).margin_bytes >= 0
    ]
    if fitting:
        return min(fitting, key=lambda change: change.saves_bytes)
    settings = question.settings
    context = max_context(question, usable_bytes)
    if context >= USEFUL_CONTEXT:
        shorter = question.with_settings(replace(settings, context=context))
        words = f"a context of {context:,}"
        return _measured(question, shorter, words, f"--context {context}", usable_bytes)
    if question.gpus == 1 and settings.compute == "gpu":
        layers = max_gpu_layers(question, usable_bytes)
        if layers is not None:
            fewer = question.with_settings(replace(settings, gpu_layers=layers))
            words = f"{layers} layers on the GPU, the others on the host"
            return _measured(question, fewer, words, f"--gpu-layers {layers}", usable_bytes)
    return None


def best_variants(question: Question, usable_bytes: int) -> tuple[Choice, ...]:
    """Variants that fit with the asked context: the Pareto set of quality, context and speed.

    Quality is an order, bits of the weights, then of the cache, then of the head: not a measured
    loss. Best first.
    """
    rates = question.card.rates if question.card else None
    found = []
    for other in _variants(question):
        for kv in kv_choices(question.subject.config):
            asked = _placed(other.with_settings(replace(other.settings, kv=kv)), usable_bytes)
            if asked.need_bytes <= usable_bytes:
                depth = asked.settings.context
                speed = decode_band(asked.plan, rates, depth=depth) if rates else None
                found.append(Choice(asked, max_context(asked, usable_bytes), speed))
    found.sort(key=lambda choice: _quality(choice.question), reverse=True)
    return tuple(
        choice
        for place, choice in enumerate(found)
        if not any(_as_good(better, choice) for better in found[:place])
    )


def _placed(question: Question, usable_bytes: int) -> Question:
    """As asked where that fits, else with the embedding on the host, which costs no speed."""
    if question.need_bytes <= usable_bytes or question.planner.tied:
        return question
    return question.with_settings(replace(question.settings, embedding="host"))


def _as_good(better: Choice, choice: Choice) -> bool:
    """Of two, the first being of better quality: is it as long and as fast as well?"""
    if better.max_context < choice.max_context:
        return False
    return not (better.decode and choice.decode) or better.decode.high >= choice.decode.high


def _quality(question: Question) -> tuple[int, int, int, bool]:
    formats = {
        weight.role: weight_format for weight, weight_format in question.subject.formats.items()
    }
    head = formats.get("head", formats["embedding"])
    linear = formats["linear"]
    kv_bits = _kv_bits(question.settings.kv)
    return linear.bits, kv_bits, head.bits, linear.scheme == "groups"


def _kv_bits(kv: str) -> int:
    return sum(weight_format.bits for weight_format in KV_FORMATS[kv])


def _variants(question: Question) -> Iterator[Question]:
    """The model in every combination of weights and head."""
    asked = question.subject.variant
    if asked is None:
        yield question
        return
    for weights, head in (
        *((weights, head) for weights in ("bf16", "int8", "int4") for head in ("bf16", "int8")),
        *((weights, "bf16") for weights in ("llm-int8", "nf4")),
    ):
        try:
            yield question.with_variant(replace(asked, weights=weights, lm_head=head))
        except OptionError:
            continue  # shapes that this format cannot hold


def _changes(question: Question) -> Iterator[tuple[str, str, Question]]:
    settings, variant = question.settings, question.subject.variant
    kv_bits = _kv_bits(settings.kv)
    for kv in kv_choices(question.subject.config):
        if _kv_bits(kv) < kv_bits:
            smaller = question.with_settings(replace(settings, kv=kv))
            yield f"{kv.upper()} KV", f"--kv {kv}", smaller
    if settings.prefill_chunk > SMALL_CHUNK:
        chunked = question.with_settings(replace(settings, prefill_chunk=SMALL_CHUNK))
        yield f"a prefill chunk of {SMALL_CHUNK}", f"--prefill-chunk {SMALL_CHUNK}", chunked
    if settings.embedding == settings.compute == "gpu" and not question.planner.tied:
        placed = question.with_settings(replace(settings, embedding="host"))
        yield "the embedding on the host", "--embedding host", placed
    if variant:
        yield from _variant_changes(question, variant)


def _variant_changes(question: Question, variant: Variant) -> Iterator[tuple[str, str, Question]]:
    others = [("INT8 weights", "--weights int8", replace(variant, weights="int8"))]
    others += [("INT4 weights", "--weights int4", replace(variant, weights="int4"))]
    if variant.lm_head == "bf16":
        others += [("an INT8 head", "--lm-head int8", replace(variant, lm_head="int8"))]
    for words, option, other in others:
        try:
            yield words, option, question.with_variant(other)
        except OptionError:
            continue  # shapes that this format cannot hold


def _measured(
    question: Question, changed: Question, words: str, option: str, usable_bytes: int
) -> Change:
    need = changed.need_bytes
    return Change(words, option, question.need_bytes - need, usable_bytes - need)
