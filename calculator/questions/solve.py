"""Inverse questions: the largest context, the smallest card, the cheapest change.

Each of them searches with the plan itself, which never shrinks when more is asked.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from calculator.cards.card import gpu_rates
from calculator.cards.gpus import Gpu, load_gpus
from calculator.cards.roofline import Band, decode_band
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.workspace import DECODE_TILE
from calculator.model.config import ModelConfig
from calculator.model.formats import KV_FORMATS, refuse_unfit_kv
from calculator.questions.question import Question
from calculator.questions.subject import Variant

Verdict = Literal["fits", "tight", "no"]

TIGHT_BYTES = 1 << 30
"""In the last GiB of a card a driver starts to spill into host memory, and a desktop needs room."""

USEFUL_CONTEXT = 1024
"""A context shorter than this is not offered as a way to make a model fit."""

SMALL_CHUNK = 128
KV_CHOICES = ("bf16", "int8", "k8v4", "int4")


def kv_choices(config: ModelConfig) -> tuple[str, ...]:
    """Return the KV formats that fit the model's heads, the finest first."""
    fitting = []
    for kv in KV_CHOICES:
        with suppress(OptionError):
            refuse_unfit_kv(kv, config.head_dim)
            fitting.append(kv)
    return tuple(fitting)


@dataclass(frozen=True)
class Change:
    """One change to the question, and the bytes that it saves on the GPU."""

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
    """Speed at the context of the question."""


def verdict(margin_bytes: int) -> Verdict:
    """Return what a margin means for a person."""
    if margin_bytes < 0:
        return "no"
    return "fits" if margin_bytes >= TIGHT_BYTES else "tight"


def max_context(question: Question, usable_bytes: int) -> int:
    """Return the most tokens of context that fit these bytes of a card; 0 where none does."""

    settings = question.settings

    def need(context: int) -> int:
        changed = replace(
            settings, context=context, shared_prefix=min(settings.shared_prefix, context)
        )
        return question.with_settings(changed).need_bytes

    longest = question.subject.config.max_position_embeddings
    if need(longest) <= usable_bytes:
        return longest
    low, high = _bracket(need, usable_bytes, longest)
    return low + bisect_right(range(low + 1, high), usable_bytes, key=need)


def _bracket(need: Callable[[int], int], usable_bytes: int, longest: int) -> tuple[int, int]:
    """Return a context that fits (or 0) and one that does not.

    A long context grows by the same bytes a token, so a straight line gives the answer in a few
    plans where halving takes 17.
    """
    low, high = 0, longest
    if longest <= DECODE_TILE or need(DECODE_TILE) > usable_bytes:
        return low, high
    at_tile = need(DECODE_TILE)
    slope = (need(longest) - at_tile) / (longest - DECODE_TILE)
    guess = DECODE_TILE + int((usable_bytes - at_tile) / slope)
    for context in sorted({DECODE_TILE, guess - 1, guess, guess + 1, guess + 2}):
        if not low < context < high:
            continue
        if need(context) <= usable_bytes:
            low = context
        else:
            return low, context
    return low, high


def max_gpu_layers(question: Question, usable_bytes: int) -> int | None:
    """Return how many layers fit the GPU, with the rest on the host; None where not even 0 fit."""

    def need(layers: int) -> int:
        settings = replace(question.settings, gpu_layers=layers)
        return question.planner.plan(settings).device_bytes("gpu")

    fitting = bisect_right(
        range(question.subject.config.num_hidden_layers + 1), usable_bytes, key=need
    )
    return fitting - 1 if fitting else None


def cards_needed(question: Question, usable_bytes: int) -> int | None:
    """Return how many such cards, 2, 4 or 8, hold the model together; None where they do not."""
    for gpus in (2, 4, 8):
        try:
            need = replace(question, gpus=gpus).need_bytes
        except OptionError:
            continue  # these shapes or groups cannot be split so
        if need <= usable_bytes:
            return gpus
    return None


def cards_that_fit(question: Question) -> tuple[Offer, ...]:
    """Return the listed cards that hold the plan, the smallest and least power-hungry first."""
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
    """Return the single change that makes it fit and takes away the fewest bytes.

    Where no change of a format does, it is a shorter context, and then layers on the host.
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


def kv_bits(kv: str) -> int:
    """Return the bits of one number of a key and one of a value together."""
    return sum(weight_format.bits for weight_format in KV_FORMATS[kv])


def _changes(question: Question) -> Iterator[tuple[str, str, Question]]:
    settings, variant = question.settings, question.subject.variant
    asked_bits = kv_bits(settings.kv)
    for kv in kv_choices(question.subject.config):
        if kv_bits(kv) < asked_bits:
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
