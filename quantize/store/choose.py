"""Choose a variant, or an entry that is there, by the memory of a card or of the host."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from calculator.cards.card import Card, find_card, find_machine_card
from calculator.checkpoint.stored import StoredModel
from calculator.errors import DoesNotFitError, OptionError
from calculator.host.memory import available_bytes
from calculator.memory.settings import RESERVE, Settings
from calculator.options import one_of
from calculator.questions.fit import CONVERSATION
from calculator.questions.question import Question
from calculator.questions.subject import Subject, Variant
from calculator.questions.variants import (
    Choice,
    Fixed,
    find_choices,
    rank,
    smallest_variant,
    with_host_layers,
)
from calculator.units import counted, human_bytes
from glm4q.planning.devices import choose_device, choose_dtype
from glm4q.planning.named_model import ModelRequest
from quantize.store.entries import Entry

MADE = ("int8", "int4")
"""What is made if the weights are left open: bf16 takes twice the memory of INT8 and the time of
each token, for next to nothing."""


@dataclass(frozen=True)
class Chosen:
    """A variant, and what a run of it is on the card."""

    question: Question
    longest: int
    """The longest context of this variant on the card."""

    @property
    def variant(self) -> Variant:
        """The variant to make."""
        return self.question.subject.variant or Variant()


def choose_variant(stored: StoredModel, request: ModelRequest) -> Chosen:
    """Choose the best variant of a source that fits. Raises OptionError or DoesNotFitError."""
    weights = wanted_weights(request)
    asked = Variant(weights or "bf16", request.group_size or "128", request.lm_head or "bf16")
    if weights == "bf16" and asked != Variant():
        raise OptionError("weights bf16 are those of the source: they have no other option")
    fixed = replace(
        _fixed(request),
        weights=weights is not None,
        group_size=request.group_size is not None,
        lm_head=request.lm_head is not None or weights == "bf16",
    )
    subject = Subject(stored.name, stored.config, stored.formats, "headers", asked)
    question = _question(subject, request)
    choices = [each for each in find_choices(question, fixed).fitting if _is_made(each, fixed)]
    if choices:
        return Chosen(choices[0].question, choices[0].max_context)
    return _on_the_host_in_part(question, fixed)


def wanted_weights(request: ModelRequest) -> str | None:
    """Read which weights the user asks for; None lets the plan choose. Raises OptionError."""
    if request.weights is not None:
        one_of("weights", request.weights, ("bf16", *MADE))
    if request.quick and request.weights not in (None, "int4"):
        raise OptionError(f"quick makes int4, not {request.weights}")
    return "int4" if request.quick else request.weights


def choose_entry(entries: Iterable[Entry], request: ModelRequest) -> Entry | None:
    """Return the entry that runs best; None where none fits that is what was asked for."""
    ranked = [(rank(choice), entry) for entry in entries for choice in _choices_of(entry, request)]
    return max(ranked, key=lambda each: each[0])[1] if ranked else None


def is_asked_for(entry: Entry, request: ModelRequest) -> bool:
    """Return whether an entry is of the variant that the user named.

    Who names int4 does not mean what --quick made of it; who leaves the weights open takes that.
    """
    origin = entry.origin
    if origin and request.weights == "int4" and not request.quick and origin.method == "rtn":
        return False
    named = {
        "weights": wanted_weights(request),
        "group_size": request.group_size,
        "lm_head": request.lm_head,
    }
    return origin is not None and all(
        word is None or getattr(origin, name) == word for name, word in named.items()
    )


def _choices_of(entry: Entry, request: ModelRequest) -> Iterator[Choice]:
    if is_asked_for(entry, request):
        yield from _choices(StoredModel.open(entry.directory), request)[:1]


def _choices(stored: StoredModel, request: ModelRequest) -> tuple[Choice, ...]:
    subject = Subject(stored.name, stored.config, stored.formats, "headers", None)
    return find_choices(_question(subject, request), _fixed(request)).fitting


def _fixed(request: ModelRequest) -> Fixed:
    wish = request.wish
    return Fixed(
        kv=wish.kv is not None,
        embedding=wish.embedding is not None or _computes_on_host(request),
        context=wish.context is not None,
    )


def _is_made(choice: Choice, fixed: Fixed) -> bool:
    variant = choice.question.subject.variant
    if variant is None or fixed.weights:
        return variant is not None
    return variant.weights in MADE


def _question(subject: Subject, request: ModelRequest) -> Question:
    wish, longest = request.wish, subject.config.max_position_embeddings
    on_host = _computes_on_host(request)
    settings = Settings(
        context=wish.context or min(CONVERSATION, longest),
        batch=wish.batch,
        draft_tokens=wish.drafts,
        kv=wish.kv or "bf16",
        embedding="host" if on_host else wish.embedding or "gpu",
        compute="host" if on_host else "gpu",
    )
    if on_host:
        dtype = choose_dtype(request.dtype, choose_device("cpu"))
        settings = replace(settings, activation_bits=8 * dtype.itemsize)
        return Question(subject, settings, _host(request), model=request.model)
    reserve = RESERVE["gpu"] if request.reserve is None else request.reserve
    card = find_card(request.gpu, request.vram) or find_machine_card() or _gpu()
    return Question(subject, replace(settings, display_reserve=reserve), card, model=request.model)


def _computes_on_host(request: ModelRequest) -> bool:
    """Return whether the CPU computes: no card is named, and this machine has none."""
    if request.gpu is not None or request.vram is not None:
        return False
    return choose_device(request.device).type == "cpu"


def _gpu() -> Card:
    """Return the GPU as torch sees it, where the driver's own library is not there to ask."""
    free, _ = torch.cuda.mem_get_info()
    return Card(torch.cuda.get_device_name(), free, "free now", ())


def _host(request: ModelRequest) -> Card:
    reserve = RESERVE["host"] if request.reserve is None else request.reserve
    return Card("the CPU", max(available_bytes() - reserve, 0), "free now", ())


def _on_the_host_in_part(question: Question, fixed: Fixed) -> Chosen:
    """Return the smallest variant with some layers on the host. Raises DoesNotFitError."""
    if fixed.weights and question.subject.variant == Variant():
        smallest = question
    else:
        smallest = smallest_variant(question, replace(fixed, lm_head=True))
    hosted = None
    if question.settings.compute == "gpu" and not fixed.context:
        hosted = with_host_layers(question, fixed)
    if hosted is not None:
        return Chosen(hosted, hosted.settings.context)
    card = question.card
    if card is None:
        raise OptionError("no card is known")
    raise DoesNotFitError(
        f"{question.subject.name} does not fit {card.name}: {smallest.subject.variant} with "
        f"{counted(smallest.settings.context, 'token')} of context need "
        f"{human_bytes(smallest.need_bytes)}, and {human_bytes(card.usable_bytes)} are free"
    )
