"""A question to the calculator: a model in a variant, settings, and perhaps cards."""

import shlex
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from calculator.cards.card import Card
from calculator.cards.roofline import Band, decode_band
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import RESERVE, Settings, default_drafts
from calculator.model.tensor_parallel import MAX_GPUS, split
from calculator.options import printable
from calculator.questions.shares import LayerSplit, Share
from calculator.questions.subject import Subject, Variant

if TYPE_CHECKING:
    from calculator.checkpoint.quality import MeasuredLoss

Split = Literal["tensor", "layers"]
"""Several cards divide every matrix among them (tensor), or each card runs a range of layers."""


@dataclass(frozen=True)
class Question:
    """What is asked. Other questions are made of it by changing one thing."""

    subject: Subject
    settings: Settings
    card: Card | None = None
    gpus: int = 1
    """How many cards share the model."""
    model: str = ""
    """The argument that named the model, so that the command can be printed again."""
    others: tuple[Card, ...] = ()
    """The second card and those after it, where the cards are not alike."""
    split: Split = "tensor"

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= MAX_GPUS:
            raise OptionError(f"gpus must be 1 to {MAX_GPUS}, not {self.gpus}")
        if self.gpus > 1 and self.settings.gpu_layers is not None:
            raise OptionError("gpu layers are for one GPU, and gpus asks for more")

    @property
    def by_layers(self) -> bool:
        """Whether each of several cards runs a range of layers."""
        return self.gpus > 1 and self.split == "layers" and self.card is not None

    @cached_property
    def planner(self) -> Planner:
        """Plans for one of the cards, or for all layers where cards divide them."""
        subject = self.subject
        if self.gpus == 1 or self.split == "layers":
            return Planner(
                subject.config, subject.formats, source=subject.source, served=subject.served
            )
        config, formats = split(subject.config, subject.formats, self.gpus)
        return Planner(config, formats, source=subject.source)

    @cached_property
    def layer_split(self) -> LayerSplit:
        """Divides the layers among the cards."""
        return LayerSplit(self.subject, self.cards)

    @property
    def cards(self) -> tuple[Card, ...]:
        """All cards that share the model; none where no card is named."""
        if self.card is None:
            return ()
        return (self.card, *self.others) if self.others else (self.card,) * self.gpus

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """What each card holds where cards divide the layers."""
        return self.layer_split.shares(self.settings)

    @cached_property
    def plan(self) -> MemoryPlan:
        """The plan of each card, or of the card that has the least memory left."""
        if self.by_layers:
            return min(self.shares, key=lambda share: share.margin_bytes).plan
        return self.planner.plan(self.settings)

    @property
    def need_bytes(self) -> int:
        """What one card must have, or the host where all is computed there."""
        if self.by_layers and self.card:
            return self.card.usable_bytes - min(share.margin_bytes for share in self.shares)
        return self.plan.compute_bytes

    @property
    def margin_bytes(self) -> int | None:
        """What the card has beyond that, below 0 where it lacks memory; None without a card."""
        return self.card.usable_bytes - self.need_bytes if self.card else None

    def decode(self, depth: int) -> Band | None:
        """Tokens a second of each sequence at that depth; None where no speed is known."""
        if not self.by_layers:
            rates = self.card.rates if self.card else None
            return decode_band(self.plan, rates, depth=depth) if rates else None
        bands = []
        for share in self.shares:
            if share.card.rates is None:
                return None
            bands.append(decode_band(share.plan, share.card.rates, depth=depth))
        # A token passes through the cards one after another.
        low, high = (sum(1 / getattr(band, end) for band in bands) for end in ("low", "high"))
        return Band(1 / low, 1 / high)

    def with_settings(self, settings: Settings) -> "Question":
        """Return this question with other settings. The planner is kept: its weights are alike."""
        changed = replace(self, settings=settings)
        for kept in ("planner", "layer_split"):
            if kept in self.__dict__ or kept == "planner":
                changed.__dict__[kept] = getattr(self, kept)
        return changed

    def with_planner_of(self, other: "Question") -> "Question":
        """Return this question with the planner of another one that has the same formats."""
        changed = replace(self)
        changed.__dict__["planner"] = other.planner
        return changed

    def with_variant(self, variant: Variant) -> "Question":
        """Return this question in other formats. Raises OptionError where the shapes refuse."""
        return replace(self, subject=self.subject.with_variant(variant))

    @cached_property
    def measured_loss(self) -> "MeasuredLoss | None":
        """The loss that a quantized checkpoint reports of itself; None where it has no report."""
        if self.subject.variant is not None:
            return None
        from calculator.checkpoint.quality import measured_loss

        return measured_loss(self.model)

    @property
    def model_argument(self) -> str:
        """The argument that names the model, as a shell reads it."""
        return shlex.quote(printable(self.model or self.subject.name))

    def command(self) -> str:
        """Return the command line that asks this again."""
        return f"glm4q calc {shlex.join(self._arguments())}"

    def _arguments(self) -> list[str]:
        settings, plain = self.settings, Settings()
        asked = [printable(self.model or self.subject.name)]
        if self.subject.variant and self.subject.source != "headers":
            asked += self.subject.variant.arguments()
        asked += ["--kv", settings.kv, "--context", str(settings.context)]
        for option, name in (
            ("--users", "batch"),
            ("--shared-prefix", "shared_prefix"),
            ("--prefill-chunk", "prefill_chunk"),
            ("--gpu-layers", "gpu_layers"),
        ):
            if getattr(settings, name) != getattr(plain, name):
                asked += [option, str(getattr(settings, name))]
        if settings.draft_tokens != default_drafts(settings.batch):
            asked += ["--draft", str(settings.draft_tokens)]
        asked += ["--embedding", settings.embedding]
        return asked + self.free_arguments() + self._card_arguments()

    def free_arguments(self) -> list[str]:
        """Return the options for what is left free of the card."""
        settings, asked = self.settings, []
        if settings.display_reserve != RESERVE["gpu"]:
            asked += ["--reserve", _mebibytes(settings.display_reserve)]
        if settings.margin:
            asked += ["--margin", _mebibytes(settings.margin)]
        return asked

    def _card_arguments(self) -> list[str]:
        if self.others:
            return ["--gpus", ",".join(card.name for card in self.cards)]
        asked = ["--gpus", str(self.gpus)] if self.gpus != 1 else []
        if self.gpus != 1 and self.split != "tensor":
            asked += ["--split", self.split]
        return asked + list(self.card.arguments if self.card else ())


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.9g}M" if size else "0"
