"""Choose what a user leaves open in a run: cache format, placement, chunk and context.

The finest cache that holds the whole context comes first. Where none does, the cache is INT8, which
loses next to nothing (docs/kv-cache.md), with as much context as fits. It is INT4 only where that
is hardly any.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from calculator.dataclass import dataclass
from calculator.errors import DoesNotFitError, OptionError
from calculator.memory.settings import Device, Settings, default_drafts
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.model.formats import KV_FORMATS
from calculator.options import one_of
from calculator.questions.question import Question
from calculator.questions.solve import (
    SMALL_CHUNK,
    USEFUL_CONTEXT,
    cheapest_change,
    kv_choices,
    max_context,
    max_gpu_layers,
)
from calculator.units import human_bytes

CHUNKS = (2048, 1024, PREFILL_CHUNK, 256, SMALL_CHUNK)
"""Prefill chunks to choose from; more tokens at once are faster, and take a larger workspace."""

CONVERSATION = 8192
"""A context with which a conversation gets along; for less, the cache is made coarser."""


@dataclass(frozen=True)
class Wish:
    """The wishes of a user for a run. None leaves the choice to `fit`."""

    context: int | None = None
    kv: str | None = None
    embedding: Device | None = None
    prefill_chunk: int | None = None
    gpu_layers: int | Literal["auto"] | None = None
    """None: all, or as many as fit where not even a short context does with all."""
    draft_tokens: int | None = None
    """Tokens guessed from the context that a step has room to verify; 0 for none."""
    batch: int = 1
    """Sequences at once, each with a context of its own."""

    def __post_init__(self) -> None:
        if self.kv is not None:
            one_of("kv", self.kv, tuple(KV_FORMATS))

    @property
    def drafts(self) -> int:
        """The wished drafts, or those that a run of so many sequences has by default."""
        return default_drafts(self.batch) if self.draft_tokens is None else self.draft_tokens


@dataclass(frozen=True)
class Fit:
    """The chosen run, and the bytes that it may use."""

    question: Question
    usable_bytes: int

    @property
    def settings(self) -> Settings:
        return self.question.settings

    def sentence(self) -> str:
        """Say in one line what was chosen, and what the next step up would cost."""
        settings = self.settings
        where = "GPU" if settings.compute == "gpu" else "host"
        parts = [f"context {settings.context:,}", f"{settings.kv} KV cache"]
        if settings.compute == "gpu":
            parts.append(f"embedding on the {'host' if settings.embedding == 'host' else 'GPU'}")
        if settings.gpu_layers is not None:
            parts.append(f"{settings.gpu_layers} layers on the GPU")
        parts.append(f"prefill chunk {min(settings.prefill_chunk, settings.context)}")
        taken = human_bytes(self.question.need_bytes)
        free = human_bytes(self.usable_bytes)
        return f"{', '.join(parts)}: {taken} of {free} on the {where}{self._next_step()}"

    def _next_step(self) -> str:
        """Say what is not at its best, and how many bytes it lacks."""
        question, settings = self.question, self.settings
        longest = question.subject.config.max_position_embeddings
        finer = _finer(question)
        if settings.context < longest:
            words, better = f"the whole context of {longest:,}", replace(settings, context=longest)
        elif finer:
            words, better = f"a {finer} KV cache", replace(settings, kv=finer)
        else:
            return ""
        need = question.with_settings(better).need_bytes
        lacking = need - self.usable_bytes
        if lacking <= 0:
            return f"; {words} would take {human_bytes(need)}"
        return f"; {words} would take {human_bytes(lacking)} more than is free"


def fit(question: Question, wish: Wish, usable_bytes: int) -> Fit:
    """The run that the wish leaves open, within these bytes of the device that computes.

    question: the model, and settings whose other fields stay. Raises OptionError where it cannot
    be, with the cheapest change that would do.
    """
    longest = question.subject.config.max_position_embeddings
    if question.settings.compute == "host":
        _refuse_gpu(wish)
    asked = _fixed(question, wish)
    whole = longest if wish.context is None else wish.context
    if isinstance(wish.gpu_layers, int):
        asked = asked.with_settings(replace(asked.settings, gpu_layers=wish.gpu_layers))
    for candidate in _candidates(asked, wish, whole):
        if candidate.need_bytes <= usable_bytes:
            return Fit(_with_largest_chunk(candidate, wish, usable_bytes), usable_bytes)
    fitting = None if wish.context else _longest(asked, wish, usable_bytes)
    if fitting is None:
        fitting = _with_host_layers(asked, wish, usable_bytes)
    if fitting is None:
        raise DoesNotFitError(_refusal(asked, wish, whole, usable_bytes))
    return Fit(fitting, usable_bytes)


def with_other_cache(fitted: Fit, kv: str, context: int | None) -> Fit:
    """The same run with another KV cache: its weights stay where they are.

    context: as much as fits if not given. Raises OptionError where it does not fit.
    """
    question = fitted.question
    changed = question.with_settings(replace(question.settings, kv=kv))
    most = max_context(changed, fitted.usable_bytes)
    if not 0 < (most if context is None else context) <= most:
        wished = "any" if context is None else f"{context:,}"
        raise DoesNotFitError(
            f"a KV cache in {kv} has room for {most:,} tokens at most in this run, not for {wished}"
        )
    settings = replace(changed.settings, context=most if context is None else context)
    return Fit(changed.with_settings(settings), fitted.usable_bytes)


def _refuse_gpu(wish: Wish) -> None:
    if wish.gpu_layers is not None:
        raise OptionError(f"gpu layers {wish.gpu_layers} need a GPU, and all runs on the host")
    if wish.embedding == "gpu":
        raise OptionError("embedding must be host where all runs on the host, not gpu")


def _fixed(question: Question, wish: Wish) -> Question:
    settings = question.settings
    return question.with_settings(
        replace(
            settings,
            embedding=wish.embedding or settings.compute,
            draft_tokens=wish.drafts,
            batch=wish.batch,
            prefill_chunk=PREFILL_CHUNK if wish.prefill_chunk is None else wish.prefill_chunk,
        )
    )


def _kvs(question: Question, wish: Wish) -> tuple[str, ...]:
    """Return the cache formats to choose from, the finest first."""
    if wish.kv:
        return (wish.kv,)
    finest, *others = kv_choices(question.subject.config)
    return ("fp32" if question.settings.activation_bits == 32 else finest, *others)


def _embeddings(question: Question, wish: Wish) -> tuple[Device, ...]:
    settings = question.settings
    if wish.embedding or settings.compute == "host" or question.planner.tied:
        return (settings.embedding,)
    return ("gpu", "host")


def _candidates(question: Question, wish: Wish, context: int) -> Iterator[Question]:
    """Yield runs with that context, the finest first. A coarser cache comes before a smaller chunk,
    which is slow."""
    for chunk in (question.settings.prefill_chunk, *([] if wish.prefill_chunk else [SMALL_CHUNK])):
        for kv in _kvs(question, wish):
            for embedding in _embeddings(question, wish):
                settings = replace(
                    question.settings,
                    context=context,
                    kv=kv,
                    embedding=embedding,
                    prefill_chunk=chunk,
                )
                yield question.with_settings(settings)


def _with_largest_chunk(question: Question, wish: Wish, usable_bytes: int) -> Question:
    """On a GPU what is left may speed up the prefill; a CPU gains nothing from larger chunks."""
    if wish.prefill_chunk or question.settings.compute == "host":
        return question
    for chunk in CHUNKS:
        larger = question.with_settings(replace(question.settings, prefill_chunk=chunk))
        if larger.need_bytes <= usable_bytes:
            return larger
    return question


def _longest(question: Question, wish: Wish, usable_bytes: int) -> Question | None:
    """Return the run with as much context as fits; None where that is next to nothing."""
    embedding = _embeddings(question, wish)[-1]
    kvs = [kv for kv in _kvs(question, wish) if wish.kv or kv not in ("fp32", "bf16")]
    for kv in kvs:
        settings = replace(question.settings, kv=kv, embedding=embedding)
        asked = question.with_settings(settings)
        most = max_context(asked, usable_bytes)
        if most >= (USEFUL_CONTEXT if kv == kvs[-1] else CONVERSATION):
            return asked.with_settings(replace(settings, context=most))
    return None


def _with_host_layers(question: Question, wish: Wish, usable_bytes: int) -> Question | None:
    """Return the run with as many layers on the GPU as fit, for a context to talk in, or None."""
    if question.settings.compute == "host" or isinstance(wish.gpu_layers, int):
        return None
    if wish.context and wish.gpu_layers is None:
        return None  # what was asked for is refused with a hint, not slowed down
    kvs = _kvs(question, wish)
    settings = replace(
        question.settings,
        context=wish.context or min(CONVERSATION, question.subject.config.max_position_embeddings),
        kv=kvs[min(1, len(kvs) - 1)],
        embedding=_embeddings(question, wish)[-1],
    )
    asked = question.with_settings(settings)
    layers = max_gpu_layers(asked, usable_bytes)
    return None if layers is None else asked.with_settings(replace(settings, gpu_layers=layers))


def _refusal(question: Question, wish: Wish, context: int, usable_bytes: int) -> str:
    """Say how much the last candidate lacks, and which change would do."""
    *_, last = _candidates(question, wish, context)
    where = "GPU" if last.settings.compute == "gpu" else "host"
    message = (
        f"context {context:,} with a {last.settings.kv} KV cache takes "
        f"{human_bytes(last.need_bytes)}, and {human_bytes(max(usable_bytes, 0))} are free on the "
        f"{where}"
    )
    change = cheapest_change(last, usable_bytes)
    if change is None:
        return f"{message}; no single change makes it fit"
    return f"{message}; {change.words} would do ({change.option})"


def _finer(question: Question) -> str | None:
    """Return the next finer cache, None where there is none."""
    kvs = _kvs(question, Wish())
    place = kvs.index(question.settings.kv) if question.settings.kv in kvs else 0
    return kvs[place - 1] if place else None
