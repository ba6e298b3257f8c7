"""What each GiB more of a card would bring: the widths that fill cards of other sizes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from calculator.cards.card import Card
from calculator.dataclass import dataclass
from calculator.errors import DoesNotFitError, OptionError
from calculator.questions.question import Question
from calculator.questions.solve import kv_choices
from calculator.questions.variants import Fixed
from calculator.questions.widths.fill import Filling, fill_card
from calculator.questions.widths.sensitivity import FILE, Sensitivity, alike, read_sensitivity
from calculator.questions.widths.slots import HEAD_SLOT, Widths
from calculator.units import GIB

STEPS = (-2, -1, 0, 1, 2, 3, 4)
"""GiB by which the cards differ from the one that is asked for."""


@dataclass(frozen=True)
class Rung:
    """The widths that fill a card of another size."""

    step: int
    """GiB more than the card that is asked for."""
    filling: Filling

    @property
    def loss(self) -> float:
        """The estimated loss, as a share of that of all matrices in their narrowest width."""
        whole = self.filling.narrowest_cost
        return self.filling.cost / whole if whole else 0.0

    @property
    def matrices(self) -> Counter[int]:
        """How many matrices of the layers have each number of bits."""
        return Counter(bits for name, bits in self.filling.bits.items() if name != HEAD_SLOT)


@dataclass(frozen=True)
class Ladder:
    """Cards from small to large, and what the loss was estimated by."""

    sensitivity: Sensitivity
    rungs: tuple[Rung, ...]

    @property
    def asked(self) -> Rung | None:
        """The card that was asked for; None where the model does not fit it."""
        return next((rung for rung in self.rungs if not rung.step), None)


def as_filled(question: Question, fixed: Fixed) -> Question:
    """Return the run whose card is filled: an INT8 cache and the embedding on the host, if open.

    Raises OptionError where there is no card, or no width to choose.
    """
    if question.card is None or question.gpus > 1:
        raise OptionError("show widths needs one card: name it with gpu or vram")
    if fixed.weights or fixed.lm_head:
        raise OptionError("show widths chooses the weights and the head: leave both out")
    settings, config = question.settings, question.subject.config
    fine = "int8" if "int8" in kv_choices(config) else settings.kv
    return question.with_settings(
        replace(
            settings,
            kv=settings.kv if fixed.kv else fine,
            embedding=(
                settings.embedding if fixed.embedding or config.tie_word_embeddings else "host"
            ),
        )
    )


def climb(question: Question) -> Ladder:
    """Fill the card of a question, and cards of some GiB less and more.

    Raises OptionError or ConfigError.
    """
    if question.card is None:
        raise OptionError("a card must be named that is to be filled")
    sensitivity = find_sensitivity(question)
    return Ladder(sensitivity, tuple(_rungs(question, question.card, sensitivity)))


def command(question: Question) -> str:
    """Return the command line that shows this again, which names no width."""
    variant = question.subject.variant
    size = f" --group-size {variant.group_size}" if variant and variant.group_size != "128" else ""
    open_ = replace(question, subject=replace(question.subject, variant=None))
    return f"{open_.command()}{size} --show widths"


def find_sensitivity(question: Question) -> Sensitivity:
    """Read the record that lies in the model's directory; without one, matrices count alike."""
    path = Path(question.model)
    if path.is_dir() and (path / FILE).is_file():
        return read_sensitivity(path)
    variant = question.subject.variant
    if variant is None:
        raise OptionError(
            f"{question.model} is quantized, and has no {FILE} that says what its matrices cost: "
            "name its source"
        )
    return alike(Widths(question.subject.config, variant.group_size))


def _rungs(question: Question, card: Card, sensitivity: Sensitivity) -> Iterator[Rung]:
    """Yield cards as far as the model fits them, up to the one that holds it in bf16."""
    widths = sensitivity.widths(question.subject.config)
    widths.refuse_unfit()
    for step in STEPS:
        other = replace(card, usable_bytes=card.usable_bytes + step * GIB)
        try:
            filling = fill_card(replace(question, card=other), widths, sensitivity.costs)
        except DoesNotFitError:
            if not step:
                raise
            continue
        yield Rung(step, filling)
        if filling.is_whole and step >= 0:
            return
